"""The packages that an installation brings, and the refusal of other files by their names.

Python looks in the working folder first, so a user's own solvers.py there would be imported in place of ours, and fail far from its
cause. What starts here, commands and `merino`, asks before it imports any of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import NoReturn

PACKAGES = ("formulation", "hardware_models", "merino_net", "solvers", "studies")


def refuse_namesakes() -> None:
    """ImportError where another file or folder would be imported in place of one of our packages; says which, and what to do."""
    home = os.path.dirname(os.path.realpath(__file__))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        folders = spec.submodule_search_locations or ()
        if os.path.join(home, name) not in map(os.path.realpath, folders):
            found = spec.origin or next(iter(folders), name)
            raise ImportError(
                f"{found} is imported in place of merino's own package {name}; rename it, to my_{name}.py for example, "
                "or start in another folder"
            )


def load(typed: str) -> ModuleType:
    """The module that has a command's `main` and `command_line`: the file study.py where `python -m` is given a study's folder."""
    module = importlib.import_module(typed)
    return importlib.import_module(f"{typed}.study") if hasattr(module, "__path__") else module


def start(typed: str, arguments: Sequence[str] | None = None, names: Mapping[str, str] = MappingProxyType({})) -> NoReturn:
    """Run what `python -m TYPED` names, and leave with its exit code.

    Args:
        typed: a module, or the folder of a study.
        arguments: the words behind it; those of the command line by default.
        names: module -> what its help calls it, where that is not `python -m MODULE`.
    """
    try:
        refuse_namesakes()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)  # ExitCode.MISTAKE, which is in one of these packages
    from formulation.command.help import called
    from formulation.command.run import run_command  # brings numpy, so not before there is something to do

    def command() -> int | None:
        code: int | None = load(typed).main(arguments)
        return code

    with called(names):
        run_command(command)
