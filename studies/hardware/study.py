"""Swapping cost models: how the best design moves when the same problem is priced by another model, or for another device.

    python -m studies.hardware --extrapolate
    python -m studies.hardware --costs params latency@my-laptop.json --reference MeRino-64M

Every cost model gets the budget that a published design spends under it, so that all problems are equally tight for that design.
Then: the optimum under each; what each optimum spends of every other model's budget (designed for A, run on B); one design that
keeps all limits of several devices and what that costs against the optimum of each; and how much latency designs of equal FLOPs
differ by. Writes hardware.json, optima.png, matrix.png and flops_latency.png; the dots of the latter are in no file.

A latency table that was not validated on the space is left out, unless --extrapolate asks for it: then its name says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import PUBLISHED, Architecture, Budget, DesignProblem, EffectiveEntropy, Quantity, SearchSpace, evaluator
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, short, text_table
from formulation.problem_file import NAMED_SPACES, read_one_space
from formulation.quantity import quantity_text
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from hardware_models import Flops, Latency, Workload
from hardware_models.names import read_quantity
from solvers import DynamicProgramming, Limits, Solution, Status, solve

DEFAULT_COSTS = (
    "params",
    "flops",
    "memory",
    "prefill-latency@jetson-nano",
    "decode-latency@jetson-nano",
    "latency@jetson-nano",
    "latency@raspberry-pi-4",
    "latency@xeon",
    "latency@titan-xp",
    "latency@amd-epyc-2cpu:torch-float32-prefill",
    "latency@amd-epyc-2cpu:onnx-float32-prefill",
    "latency@amd-epyc-2cpu:torch-float32-decode",
)
"""Parameters, FLOPs, memory, a roofline in both phases, and every shipped device."""
_SOLVER = DynamicProgramming()
_EQUAL_FLOPS = 0.02
"""Designs whose FLOPs differ by less, relatively, count as equal in the spread of their latency."""


@dataclass(frozen=True)
class HardwareOptions:
    """What the study was asked for, see --help; ValueError for too few designs, or a cost named twice."""

    costs: tuple[str, ...]
    space: str
    reference: str
    extrapolate: bool
    designs: int
    seconds: float
    output: str

    def __post_init__(self) -> None:
        if self.designs < 20:
            raise ValueError(f"--designs is {self.designs}; expected at least 20")
        if len(set(self.costs)) < len(self.costs):
            raise ValueError(f"--costs names {', '.join(self.costs)}; expected each once")


@dataclass(frozen=True)
class Optimum:
    """The best design under one cost model.

    Attributes:
        cost: as the command line names it, and as a quantity with its budget.
        solution: proved, or ValueError was raised.
        outside: what of this design its table was not validated on; empty where nothing.
    """

    name: str
    budget: Budget
    solution: Solution
    outside: str

    @property
    def design(self) -> Architecture:
        assert self.solution.architecture is not None
        return self.solution.architecture


def read_costs(names: Sequence[str], space: SearchSpace, extrapolate: bool) -> dict[str, Quantity]:
    """The cost models by name; those not validated on the space are read as extrapolations or left out, and it is said which."""
    costs: dict[str, Quantity] = {}
    for name in names:
        quantity = read_quantity(name, "cost")
        try:
            quantity.check(space)
        except ValueError as error:
            if not extrapolate:
                print(f"left out: {error}", file=sys.stderr)
                continue
            quantity = read_quantity(name, "cost", extrapolate=True)
        costs[name] = quantity
    if not costs:
        raise ValueError("no cost model is validated on this space; name others with --costs, or add --extrapolate")
    return costs


def outside(quantity: Quantity, design: Architecture) -> str:
    """What of a design a latency table was not validated on; empty for any other quantity."""
    return quantity.table.leaves_out(design) if isinstance(quantity, Latency) else ""


def doubt(quantity: Quantity) -> str:
    """Why a latency table is not to be relied on; empty where it is, and for any other quantity."""
    return quantity.table.doubt if isinstance(quantity, Latency) else ""


def optimise(space: SearchSpace, budgets: Sequence[Budget], seconds: float) -> Solution:
    """The design of greatest entropy within the budgets; ValueError if it is not proved."""
    solution = solve(DesignProblem(space, EffectiveEntropy(), tuple(budgets)), _SOLVER, Limits(seconds=seconds))
    if solution.status is not Status.OPTIMAL:
        kept = " and ".join(map(str, budgets))
        raise ValueError(f"no proof within {seconds:g} s for {kept}: {solution.status.value}; give more --seconds")
    return solution


def workload_of(quantity: Quantity) -> Workload:
    """The pass that a latency table predicts; for any other quantity a query as long as `Flops` has it by default."""
    return quantity.table.workload if isinstance(quantity, Latency) else Workload("prefill", Flops.seq_len)


def pass_flops(space: SearchSpace, choices: np.ndarray, work: Workload) -> np.ndarray:
    """FLOPs of one pass without the output head, (n,), for the designs of the rows of `choices`.

    B·n tokens that attend to S each do B·n / S times the work that `Flops` counts for a query of S tokens.
    """
    return work.tokens / work.attended * evaluator(Flops(work.attended), space)(choices)


def latency_at_equal_flops(space: SearchSpace, costs: dict[str, Quantity], designs: int, seed: int) -> dict[str, Any]:
    """Cost of random designs beside the FLOPs of the same pass, and its spread where FLOPs are equal within 2 %.

    spread is the median, over the sampled designs, of the ratio of the largest to the smallest cost among those of equal FLOPs.
    """
    from scipy.stats import spearmanr

    choices = space.sample(np.random.default_rng(seed), designs)
    result: dict[str, Any] = {"designs": designs, "seed": seed, "flops": {}, "costs": {}}
    for name, quantity in costs.items():
        work = workload_of(quantity)
        flops, values = pass_flops(space, choices, work), evaluator(quantity, space)(choices)
        result["flops"][str(work)] = [float(f"{value:.6g}") for value in flops]
        order = np.argsort(flops)
        low, high = (np.searchsorted(flops[order], flops * (1 + side * _EQUAL_FLOPS / 2)) for side in (-1, 1))
        ranked = values[order]
        ratios = [ranked[a:b].max() / ranked[a:b].min() for a, b in zip(low, high, strict=True) if b - a >= 10]
        result["costs"][name] = {
            "pass": str(work),
            "values": [float(f"{value:.6g}") for value in values],
            "spearman": float(spearmanr(flops, values).statistic),
            "spread": float(np.median(ratios)) if ratios else None,
            "extrapolated": any(outside(quantity, space.decode(choice)) for choice in choices),
            "doubt": doubt(quantity),
        }
    return result


def without_dots(record: dict[str, Any]) -> dict[str, Any]:
    """What hardware.json holds: all figures but the values of each random design, which the same seed gives again."""
    flops = record["flops"]
    costs = {name: {key: value for key, value in own.items() if key != "values"} for name, own in flops["costs"].items()}
    return record | {"flops": {key: value for key, value in flops.items() if key != "flops"} | {"costs": costs}}


def optima_of_devices(
    space: SearchSpace, costs: dict[str, Quantity], reference: Architecture, options: HardwareOptions
) -> dict[str, Any]:
    """All figures of the study, ready for JSON."""
    optima = []
    for name, quantity in costs.items():
        budget = Budget(quantity, quantity(reference))
        solution = optimise(space, [budget], options.seconds)
        assert solution.architecture is not None
        optima.append(Optimum(name, budget, solution, outside(quantity, solution.architecture)))
    devices = [one for one in optima if isinstance(one.budget.quantity, Latency)]
    common = optimise(space, [one.budget for one in devices], options.seconds) if len(devices) > 1 else None
    return {
        "reference": {"name": options.reference, "design": str(reference), "entropy": EffectiveEntropy()(reference)},
        "optima": [_optimum_record(one) for one in optima],
        "matrix": [[other.budget.quantity(one.design) / other.budget.bound for other in optima] for one in optima],
        "common": None if common is None else _common_record(common, devices),
        "flops": latency_at_equal_flops(space, {one.name: one.budget.quantity for one in devices}, options.designs, seed=0),
    }


def _optimum_record(one: Optimum) -> dict[str, Any]:
    return {
        "cost": one.name,
        "quantity": quantity_text(one.budget.quantity),
        "unit": one.budget.quantity.unit,
        "budget": one.budget.bound,
        "spent": one.budget.quantity(one.design),
        "entropy": one.solution.objective,
        "gap": one.solution.gap,
        "design": str(one.design),
        "architecture": one.design.to_dict(),
        "layers": sum(one.design.depths),
        "extrapolated": one.outside,
        "doubt": doubt(one.budget.quantity),
        "seconds": one.solution.seconds,
    }


def _common_record(common: Solution, devices: Sequence[Optimum]) -> dict[str, Any]:
    assert common.architecture is not None
    assert common.objective is not None
    return {
        "design": str(common.architecture),
        "architecture": common.architecture.to_dict(),
        "entropy": common.objective,
        "devices": [
            {
                "cost": one.name,
                "spent_of_limit": one.budget.quantity(common.architecture) / one.budget.bound,
                "own_entropy": one.solution.objective,
                "entropy_lost": 1 - common.objective / one.solution.objective,  # type: ignore[operator]
                "extrapolated": outside(one.budget.quantity, common.architecture),
                "doubt": doubt(one.budget.quantity),
            }
            for one in devices
        ],
    }


def _text(record: dict[str, Any]) -> str:
    """The tables for people; * marks what lies outside what a table was validated on, ? a table of large error."""
    from studies.hardware.figures import marks

    optima, reference = record["optima"], record["reference"]

    letters = [chr(65 + number) + marks(one) for number, one in enumerate(optima)]
    longest = max(len(marks(one)) for one in optima)

    def marked(one: dict[str, Any], text: str) -> str:
        return text + marks(one).ljust(max(longest, 1))

    lines = [
        (
            letter,
            marked(one, one["cost"]),
            f"{short(one['budget'])} {one['unit']}",
            f"{one['entropy']:,.0f}",
            str(one["layers"]),
            one["design"],
        )
        for letter, one in zip(letters, optima, strict=True)
    ]
    parts = [
        f"Each budget is what {reference['name']} spends: {reference['design']}, entropy {reference['entropy']:,.0f} nat.\n",
        text_table(("", "cost model", "budget", "entropy", "layers", "optimum: width/ffn x depth"), lines, {0, 1, 5}),
        "\nDesigned for the row's model, share of the column's budget that it spends (above 1: exceeds it)",
        text_table(
            ("", *letters), [(a, *(f"{value:.2f}" for value in row)) for a, row in zip(letters, record["matrix"], strict=True)], {0}
        ),
    ]
    if record["common"] is not None:
        common = record["common"]
        rows = [
            (marked(one, one["cost"]), f"{one['spent_of_limit']:.3f}", f"{100 * one['entropy_lost']:.1f} %")
            for one in common["devices"]
        ]
        parts += [
            f"\nOne design within every device's limit: {common['design']}, effective entropy {common['entropy']:,.0f} nat",
            text_table(("device", "of its limit", "entropy lost against its own optimum"), rows, {0}),
        ]
    flops = record["flops"]
    rows = [
        (marked(own, name), f"{own['spearman']:.3f}", "" if own["spread"] is None else f"{own['spread']:.2f}")
        for name, own in flops["costs"].items()
    ]
    if rows:
        parts += [
            f"\nOf {counted(flops['designs'], 'random design')}: latency beside FLOPs",
            text_table(("device", "rank correlation", "largest / smallest at equal FLOPs"), rows, {0}),
        ]
    if any(one["extrapolated"] for one in optima):
        parts.append("\n* outside what the device's table was validated on: an extrapolation.")
    parts += [f"\n? {sentence}." for sentence in dict.fromkeys(one["doubt"] for one in optima if one["doubt"])]
    return "\n".join(parts)


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "--costs",
        nargs="+",
        default=list(DEFAULT_COSTS),
        metavar="NAME",
        help="as budgets name them: flops, memory, latency@DEVICE, my_module:MyCost (default: params, flops, memory, a roofline "
        "and every shipped device)",
    )
    parser.add_argument("--space", default="paper", metavar="NAME|FILE", help=f"{NAMED_SPACES} (default paper)")
    parser.add_argument(
        "--reference",
        default="MeRino-61M",
        metavar="NAME",
        help=f"whose costs are the budgets: {', '.join(PUBLISHED)} (default MeRino-61M)",
    )
    parser.add_argument("--extrapolate", action="store_true", help="also tables that were not validated on the space, marked")
    parser.add_argument("--designs", type=int, default=2000, metavar="N", help="random designs of the FLOPs picture (default 2000)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time limit of each proof in seconds (default 60)")
    parser.add_argument(
        "--output", default="results/hardware", metavar="DIR", help="folder of the results (default results/hardware)"
    )
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(HardwareOptions, command_line(), arguments)
    space, reference = read_one_space(options.space), chosen("reference", options.reference, PUBLISHED)
    costs = read_costs(options.costs, space, options.extrapolate)
    folder = output_folder(options.output)
    record = optima_of_devices(space, costs, reference, options)
    print(_text(record))
    write_json(folder / "hardware.json", without_dots(record) | {"space": options.space, "provenance": provenance(0)})
    written = ["hardware.json", "optima.png", "matrix.png"]
    from studies.hardware.figures import draw_latency, draw_matrix, draw_optima

    save_figure(draw_optima(record), folder / "optima.png")
    save_figure(draw_matrix(record), folder / "matrix.png")
    if record["flops"]["costs"]:
        save_figure(draw_latency(record), folder / "flops_latency.png")
        written.append("flops_latency.png")
    print(f"\nWritten to {folder}: {', '.join(written)}")
    return 0
