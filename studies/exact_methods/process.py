"""The process that `apart.run_apart` starts: `python -m studies.exact_methods.process KIND WORDS CERTIFICATE`, not for people.

WORDS is JSON, and says what a run of that KIND is of. The row is the last line of the standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from formulation.command.run import run_command
from formulation.records.rows import Row
from solvers import EngineMissing
from studies.exact_methods.fronts import FrontTrial, front_and_measure
from studies.exact_methods.trial import Trial, solve_and_measure

KINDS: dict[str, tuple[type, Callable[..., Row]]] = {
    "solve": (Trial, solve_and_measure),
    "front": (FrontTrial, front_and_measure),
}
"""Kind of a run -> the record that its words fill, and what measures it."""


def main(kind: str, words: str, certificate: str) -> None:
    """Measure, and print the row."""
    record, measured = KINDS[kind]
    try:
        row = measured(record(**json.loads(words)), Path(certificate))
    except EngineMissing as error:
        row = {"missing": str(error)}
    print(f"\n{json.dumps(row, allow_nan=False)}", flush=True)


if __name__ == "__main__":
    run_command(main, *sys.argv[1:])
