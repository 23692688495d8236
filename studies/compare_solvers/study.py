"""The main job: solve the paper's design problem with every solver, prove which answer is best, and compare.

    python -m studies.compare_solvers
    python -m studies.compare_solvers --space fine --budget flops=60e9 --budget params=60e6 --solvers dp,highs --seconds 30

Writes rows.jsonl (a finished cell is never run twice), summary.json and two figures; draws them with
`studies.compare_solvers.figures`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.problem_file import NAMED_SPACES
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Row, RowFile
from solvers.names import SOLVERS
from studies.budget_flags import add_budget_arguments
from studies.compare_solvers.cells import CompareOptions, best_bound, cells_of, run_cells
from studies.compare_solvers.tables import (
    losses_table,
    named_losses,
    problem_table,
    proofs_agree,
    published_losses,
    published_rows,
    sentence,
)


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--space", default="paper", metavar="NAME|FILE", help=f"{NAMED_SPACES} (default paper)")
    add_budget_arguments(
        parser,
        "different names hold together, a name given again makes a further problem (default: the paper's three FLOPs budgets)",
    )
    parser.add_argument(
        "--solvers",
        default=None,
        metavar="NAMES",
        help=f"comma-separated, of {', '.join(SOLVERS)} (default: all but dp-wide, dp-coarse and dp-unmerged)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each heuristic (default 3)")
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="runs of each other solver, whose median time is shown (default 1)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time limit of one run in seconds (default 60)")
    parser.add_argument(
        "--output", default="results/compare_solvers", metavar="DIR", help="folder of the results (default results/compare_solvers)"
    )
    parser.add_argument("--quick", action="store_true", help="the quick solvers, one seed, 2 s a run: under 30 s")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = read_options(CompareOptions, command_line(), arguments)
    cells = cells_of(options)
    folder = output_folder(options.output)
    rows, missing = run_cells(cells, RowFile(folder / "rows.jsonl"))
    space, seconds = cells[0].problem.space, min(cells[0].seconds, 20.0)
    losses, named = published_losses(space, seconds), named_losses(space, seconds)
    titles = list(dict.fromkeys(cell.title for cell in cells))
    summary: list[Row] = []
    for title in titles:
        own = [row for row in rows if row["problem"] == title]
        cell = next(cell for cell in cells if cell.title == title)
        published = published_rows(cell, best_bound(own))
        print(f"\n{title}\n{problem_table(own, published, missing)}")
        summary += [{key: value for key, value in row.items() if key not in ("trace", "key", "option")} for row in own] + published
    print(f"\nPublished designs under their own counted FLOPs and parameters\n{losses_table(losses)}")
    print(f"\nPublished designs with nothing shared, under the parameters that their names state\n{losses_table(named)}")
    print(f"\n{sentence(rows, titles)}")
    write_json(folder / "summary.json", summary)
    write_json(folder / "published.json", {"losses": losses, "named": named, "provenance": provenance(0)})
    from studies.compare_solvers.figures import draw_anytime, draw_best_designs

    save_figure(draw_anytime(rows, titles), folder / "anytime.png")
    save_figure(draw_best_designs(rows, titles), folder / "designs.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, published.json, anytime.png, designs.png")
    agreed = all(proofs_agree([row for row in rows if row["problem"] == title]) for title in titles)
    return ExitCode.DONE if agreed else ExitCode.BROKEN_PROMISE
