"""Does a better design train better? Several designs of one FLOPs budget, trained on equal tokens with equal seeds.

    python -m studies.train_compare --text train.txt.xz --held-out-text valid.txt
    python -m studies.train_compare --published MeRino-61M --scale 2 --steps 2000 --seeds 5 --jobs 4
    python -m studies.train_compare --text books/ --backend dask --scheduler tcp://head:8786

The designs: the proven optimum of the (scaled) paper space, the published MeRino whose FLOPs are the budget, a uniform
GPT-2-like design, and the design with most parameters. Widths are divided by `--scale`, so that a machine without a GPU can
train them. How the runs are done is `studies.training_runs`'.
Writes rows.jsonl (a finished run is never run twice, one that was stopped goes on), summary.json and train_compare.png.
"""

from __future__ import annotations

import argparse
import dataclasses

from formulation import PUBLISHED, DesignProblem
from formulation.architecture import positive_integer
from formulation.report import command_parser, output_folder, provenance, run_command, save_figure, write_json
from hardware_models import Params
from studies.comparison import Candidate, distinct, figure_of, records_of, table_text
from studies.quantities import chosen
from studies.scaled_designs import problem_of, proved, uniform_design
from studies.training_runs import (
    PACKAGES,
    add_data_arguments,
    add_plan_arguments,
    add_worker_arguments,
    check_workers,
    plan_of,
    prepare,
    trained,
)

OPTIMUM, PUBLISHED_DESIGN, UNIFORM, MOST_PARAMETERS = "proven optimum", "published", "uniform", "most parameters"


def candidates(published: str, scale: int, vocabulary: int, seq_len: int) -> tuple[DesignProblem, list[Candidate]]:
    """The problem and the designs that take part, a design that two names share but once. ValueError without a proof."""
    problem, small = problem_of(chosen("published design", published, PUBLISHED), scale, vocabulary, seq_len)
    designs = [
        (OPTIMUM, proved(problem)),
        (f"{PUBLISHED_DESIGN} {published}" + (f" / {scale}" if scale > 1 else ""), small),
        (UNIFORM, uniform_design(problem)),
        (MOST_PARAMETERS, proved(dataclasses.replace(problem, maximize=Params()))),
    ]
    return problem, distinct([Candidate(name, design) for name, design in designs])


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    positive_integer("scale", options.scale)
    positive_integer("seeds", options.seeds)
    check_workers(options)
    problem, designs = candidates(options.published, options.scale, options.vocabulary, options.sequence)
    folder = output_folder(options.output)
    plan = plan_of(options)
    data = prepare(options, folder)
    records = records_of(designs, trained(designs, plan, data, options, folder, keep=True))
    print(table_text(records))
    save_figure(figure_of({f"equal FLOPs, {options.published} / {options.scale}": records}), folder / "train_compare.png")
    write_json(
        folder / "summary.json",
        {
            "budget": f"FLOPs of {options.published} with widths / {options.scale}, {options.sequence} tokens, head left out",
            "budget_flops": problem.subject_to[0].upper,
            "data": data.identity,
            "plan": dataclasses.asdict(plan),
            "designs": records,
            "provenance": provenance(0, PACKAGES),
        },
    )
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "--published",
        default="MeRino-52M",
        metavar="NAME",
        help="the published design whose FLOPs are the budget (default: %(default)s)",
    )
    parser.add_argument("--scale", type=int, default=4, metavar="N", help="divide all widths by this (default: %(default)s)")
    add_data_arguments(parser, vocabulary=2048)
    add_plan_arguments(parser, sequence=256, steps=360, batch=16, learning_rate=2e-3, optimizer="adamw", evaluate_at_most=512)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)")
    add_worker_arguments(parser, "results/train_compare")
    return parser


if __name__ == "__main__":
    run_command(main)
