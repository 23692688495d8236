"""Do a device file's predictions hold on the machine it was measured on? Predictions, limits and gains, all measured again.

    python -m hardware_models.profile --name my-laptop
    python -m studies.latency_check my-laptop.json --table torch-float32-prefill

Three parts, of which every network is measured with the engine and the clockwork of the file's table, in this fresh run, at the
pace that the file was measured at as far as the machine comes to it; what the first visit gave, whatever the pace, stands beside:

    networks  random networks of the space, or of the parts of a union in turn: predicted against measured latency
    budgets   designs of greatest entropy for limits spread over the space's range, once as predicted and once with a confidence:
              how often the limit is really kept, how near to it the designs come, and what entropy the confidence costs
    flops     for five FLOPs budgets the design of greatest entropy, and the fastest by the table with at least that entropy,
              timed in turns: what is gained by designing for latency in place of FLOPs

Writes rows.jsonl as it goes (what is measured is not measured again), summary.json and latency_check.png.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, SearchSpace, SpaceUnion, fingerprint
from formulation.architecture import SETTING
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.problem import just_below
from formulation.problem_file import NAMED_SPACES, SPACES, read_space
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from hardware_models import Flops, Latency, LatencyTable, fit_error, read_device
from hardware_models.drawn import drawn_design, networks_of, setting_of
from hardware_models.profile import Key, measure_steadily, steadiest, usual_paces
from solvers import DynamicProgramming, Limits, Solution, Status, solve

if TYPE_CHECKING:
    from hardware_models.artefacts import ArtefactEngine
    from hardware_models.engines import Engine

_PARTS = ("networks", "budgets", "flops")
FLOPS_BUDGETS = (4e9, 8e9, 12e9, 18e9, 26e9)
"""Budgets for the FLOPs of one pass of the table's length, without the head."""
_SOLVER = DynamicProgramming()
_GAP = 1e-6
_OBJECTIVE = EffectiveEntropy()


@dataclass(frozen=True)
class Check:
    """What is checked, and how.

    Attributes:
        latency: of the table, extrapolating nowhere.
        networks: random ones.
        limits: of the part "budgets".
        confidence: with which they are to hold.
        turns: of the part "flops".
        seconds: that each network is timed for.
    """

    space: Any  # a SearchSpace or a SpaceUnion
    latency: Latency
    networks: int
    limits: int
    confidence: float
    turns: int
    seconds: float

    @property
    def pace_ms(self) -> float | None:
        """Usual pace of the machine when the device file was measured; None if the file does not say."""
        pace: float | None = self.latency.table.how.get("pace_ms")
        return pace


def best_within(check: Check, budget: Budget) -> Solution:
    """The design of greatest entropy that keeps one budget, proved; ValueError if there isn't one."""
    solution = solve(DesignProblem(check.space, _OBJECTIVE, (budget,)), _SOLVER, Limits(gap=_GAP))
    if solution.status is not Status.OPTIMAL:
        raise ValueError(f"no design of the space keeps {budget}, or it is not proved ({solution.message})")
    return solution


def richest(check: Check) -> Architecture:
    """The design of greatest entropy of the whole space."""
    design = solve(DesignProblem(check.space, _OBJECTIVE), _SOLVER, Limits(gap=_GAP)).architecture
    assert design is not None
    return design


def fastest_with(check: Check, entropy: float) -> Architecture:
    """The design of least predicted latency whose entropy is at least `entropy`, up to a relative gap of 1e-6 in entropy.

    The greatest entropy within a limit rises with the limit: bisection down to a thousandth of the latency, then from design to
    design: below the latency of the last one that has enough there is none.
    """

    def with_enough(limit: float) -> Architecture | None:
        found = solve(DesignProblem(check.space, _OBJECTIVE, (Budget(check.latency, limit),)), _SOLVER, Limits(gap=_GAP))
        return found.architecture if found.objective is not None and found.objective >= entropy * (1 - _GAP) else None

    best = richest(check)
    low, high = 0.0, check.latency(best)
    while high > low * 1.001:
        limit = (low + high) / 2
        if (found := with_enough(limit)) is None:
            low = limit
        else:
            best, high = found, check.latency(found)
    while (found := with_enough(just_below(high))) is not None:
        best, high = found, check.latency(found)
    return best


def limits_of(check: Check) -> np.ndarray:
    """Limits [ms] spread evenly on a logarithmic scale from the fastest design to the one of greatest entropy."""
    confident = check.latency.at_confidence(check.confidence)
    least = 1.1 * min(confident(_narrow(part)) for part in check.space.parts)
    return np.geomspace(least, check.latency(richest(check)), check.limits)


def _narrow(space: SearchSpace) -> Architecture:
    """The design of the first blocks that have layers."""
    blocks = tuple(next(block for block in menu.items if block.depth) for menu in space.menus)
    return Architecture(blocks, **{name: getattr(space, name) for name in SETTING})


def random_designs(space: SearchSpace | SpaceUnion, count: int) -> list[Architecture]:
    """Random designs: of a space drawn uniformly; of a union part by part, in turns uniformly and as `networks_of` draws them.

    A design drawn uniformly has a shape of its own in each layer, and about as many layers as all others.
    """
    draw = np.random.default_rng(1)
    if len(space.parts) == 1:
        return [space.parts[0].decode(row) for row in space.parts[0].sample(draw, count)]
    spread = networks_of(space, count, seed=1)
    parts = [space.parts[number % len(space.parts)] for number in range(count)]
    return [spread[number] if number % 2 else part.decode(part.sample(draw, 1)[0]) for number, part in enumerate(parts)]


def planned_rows(check: Check, parts: Sequence[str]) -> list[Row]:
    """What is to be measured, a row each without its measurement; the designs of "budgets" and "flops" are solved for here."""
    rows: list[Row] = []
    if "networks" in parts:
        designs = random_designs(check.space, check.networks)
        rows += [_row(check, "networks", number, "", design) for number, design in enumerate(designs)]
    if "budgets" in parts:
        for number, limit in enumerate(tqdm(limits_of(check), desc="solving", unit="limit", disable=not sys.stderr.isatty())):
            for kind, latency in (("as predicted", check.latency), ("confident", check.latency.at_confidence(check.confidence))):
                solution = best_within(check, Budget(latency, float(limit)))
                assert solution.architecture is not None
                facts = {"limit_ms": float(limit), "entropy": solution.objective}
                rows.append(_row(check, "budgets", number, kind, solution.architecture) | facts)
    if "flops" in parts:
        for number, upper in enumerate(FLOPS_BUDGETS):
            slow = best_within(check, Budget(Flops(check.latency.table.workload.seq_len), upper))
            assert slow.architecture is not None
            assert slow.objective is not None
            fast = fastest_with(check, slow.objective)
            for turn in range(check.turns):
                for kind, design in (("FLOPs", slow.architecture), ("latency", fast)):
                    facts = {"flops_budget": upper, "turn": turn, "entropy": _OBJECTIVE(design)}
                    rows.append(_row(check, "flops", number, kind, design) | facts)
    return rows


def _row(check: Check, part: str, number: int, kind: str, design: Architecture) -> Row:
    return {"part": part, "number": number, "kind": kind, "design": str(design), "predicted_ms": check.latency(design)}


def _key(row: Row) -> Key:
    return tuple(row.get(name) for name in ("part", "number", "kind", "design", "turn"))


def _measured_key(row: Row) -> Key | None:
    """None for the row of conditions."""
    return _key(row) if "part" in row else None


def measure_plan(
    plan: Sequence[Row], engine: Engine | ArtefactEngine, check: Check, file: RowFile, designs: Callable[[str], Architecture]
) -> None:
    """Measure what the file does not hold yet: the single networks in random order, and again where the machine was not at the
    pace that the device file was measured at; then the turns of "flops", once each."""
    by_key = {_key(row): row for row in plan}
    single = [key for key, row in by_key.items() if row["part"] != "flops"]
    order = np.random.default_rng(2).permutation(len(single))

    def visit(key: Key, design: Architecture) -> Row:
        seen = engine.measure(design, check.seconds)
        return by_key[key] | {"measured_ms": seen.trimmed_ms, "pace_ms": seen.pace_ms}

    jobs = {single[k]: designs(by_key[single[k]]["design"]) for k in order}
    measure_steadily(jobs, file, lambda row: _measured_key(row) if row.get("part") != "flops" else None, visit, check.pace_ms)
    turns = sorted((row for row in plan if row["part"] == "flops"), key=lambda row: (row["turn"], row["number"], _order(row)))
    with Resume(file, map(_key, turns), key_of=_measured_key, unit="turn") as resume:
        for row in turns:
            resume.row(_key(row), partial(visit, _key(row), designs(row["design"])))


def begin(file: RowFile, check: Check, space: str) -> None:
    """Write down what is measured in a new file; ValueError if an earlier one is about another table, space or time."""
    table = check.latency.table
    conditions = {"device": table.device, "table": table.name, "prices": dict(table.prices), "pace_ms": check.pace_ms}
    conditions |= {"space": space, "seconds": check.seconds, "confidence": check.confidence, "limits": check.limits}
    file.begin({"conditions": conditions})


def first_visits(rows: Sequence[Row]) -> dict[Key, Row]:
    """For each network the first row: as a user would have measured it, whatever the machine did just then."""
    first: dict[Key, Row] = {}
    for row in rows:
        if (key := _measured_key(row)) is not None:
            first.setdefault(key, row)
    return first


def _order(row: Row) -> bool:
    """In every second turn the other design of a pair comes first."""
    return (row["kind"] == "FLOPs") == bool(row["turn"] % 2)


def check_summary(check: Check, plan: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of each part: of "networks" and "budgets" at the pace of the device file, and as they came at the first visit."""
    from hardware_models.profile_standalone import is_steady

    table = check.latency.table
    summary: dict[str, Any] = {"device": table.device, "table": table.name, "doubt": table.doubt, "seconds": check.seconds}
    steady = steadiest(rows, _measured_key, check.pace_ms)
    first = first_visits(rows)
    usual = usual_paces(rows, _measured_key)
    for part, figures in (("networks", _errors), ("budgets", _budgets)):
        own = [row for row in plan if row["part"] == part]
        if own:
            summary[part] = figures(check, [row | _seen(steady[_key(row)]) for row in own])
            summary[part]["as_it_came"] = figures(check, [row | _seen(first[_key(row)]) for row in own])
            paces = [steady[_key(row)]["pace_ms"] / (check.pace_ms or usual[part]) for row in own]
            off = sum(not is_steady(pace, 1.0) for pace in paces)
            spread = {"median": median(paces), "least": min(paces), "most": max(paces)}
            summary[part]["pace"] = {"off": off, "of": len(paces), **spread}
    if flops := [row | _seen(first[_key(row)]) for row in plan if row["part"] == "flops"]:
        summary["flops"] = [
            _gain([row for row in flops if row["number"] == number]) for number in sorted({r["number"] for r in flops})
        ]
    return summary


def _seen(row: Row) -> Row:
    return {"measured_ms": row["measured_ms"], "pace_ms": row["pace_ms"]}


def _errors(check: Check, rows: Sequence[Row]) -> dict[str, Any]:
    error = fit_error([row["predicted_ms"] for row in rows], [row["measured_ms"] for row in rows])
    return {
        "networks": error.networks,
        "within_10": error.within_10,
        "mape": error.mape,
        "spearman": error.spearman,
        "rmse_ms": error.rmse,
        "median_ratio": median(row["measured_ms"] / row["predicted_ms"] for row in rows),
    }


def _budgets(check: Check, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "confidence": check.confidence,
        "margin": check.latency.table.margin(check.confidence),
        **{kind: _kept([row for row in rows if row["kind"] == kind]) for kind in ("as predicted", "confident")},
        **_cost(rows),
    }


def _kept(rows: Sequence[Row]) -> dict[str, Any]:
    from scipy.stats import binomtest

    ratios = [row["measured_ms"] / row["limit_ms"] for row in rows]
    kept = sum(ratio <= 1 for ratio in ratios)
    interval = binomtest(kept, len(rows)).proportion_ci(0.95, method="exact")
    return {
        "designs": len(rows),
        "different": len({row["design"] for row in rows}),
        "kept": kept,
        "share": kept / len(rows),
        "clopper_pearson_95": [float(interval.low), float(interval.high)],
        "median_of_limit": median(ratios),
        "worst_of_limit": max(ratios),
    }


def _cost(rows: Sequence[Row]) -> dict[str, Any]:
    """Entropy that confidence costs: relative loss of the confident design against the one as predicted, limit by limit."""
    by_limit: dict[int, dict[str, float]] = {}
    for row in rows:
        by_limit.setdefault(row["number"], {})[row["kind"]] = row["entropy"]
    losses = [1 - own["confident"] / own["as predicted"] for own in by_limit.values() if len(own) == 2]
    return {"median_entropy_loss": median(losses), "worst_entropy_loss": max(losses)} if losses else {}


def _gain(rows: Sequence[Row]) -> dict[str, Any]:
    """What the fastest design of enough entropy saves: measured latency of the FLOPs optimum over its own, turn by turn."""
    turns: dict[int, dict[str, Row]] = {}
    for row in rows:
        turns.setdefault(row["turn"], {})[row["kind"]] = row
    pairs = [own for own in turns.values() if len(own) == 2]
    ratios = sorted(own["latency"]["measured_ms"] / own["FLOPs"]["measured_ms"] for own in pairs)
    slow, fast = pairs[0]["FLOPs"], pairs[0]["latency"]
    return {
        "flops_budget": slow["flops_budget"],
        "turns": len(pairs),
        "ratio_predicted": fast["predicted_ms"] / slow["predicted_ms"],
        "ratio_measured": median(ratios),
        "ratios": ratios,
        **{
            f"{key}_{kind.lower()}": own[key] for kind, own in (("FLOPs", slow), ("latency", fast)) for key in ("design", "entropy")
        },
        **{f"median_ms_{kind.lower()}": median(own[kind]["measured_ms"] for own in pairs) for kind in ("FLOPs", "latency")},
    }


def check_text(summary: dict[str, Any]) -> str:
    """The summary for people."""
    return "\n\n".join(_paragraphs(summary))


def _paragraphs(summary: dict[str, Any]) -> Iterator[str]:
    yield f"{summary['device']}, {summary['table']}" + (f"\n{summary['doubt']}" if summary["doubt"] else "")
    if own := summary.get("networks"):
        lines = [
            (
                name,
                f"{100 * each['within_10']:.0f} %",
                f"{100 * each['mape']:.1f} %",
                f"{each['spearman']:.4f}",
                f"{each['median_ratio']:.3f}",
            )
            for name, each in (("at the pace of the file", own), ("as it came", own["as_it_came"]))
        ]
        header = (
            counted(own["networks"], "random network"),
            "within 10 %",
            "mean error",
            "Spearman",
            "median measured / predicted",
        )
        yield text_table(header, lines, {0})
    if own := summary.get("budgets"):
        kept_lines = [
            (
                "as predicted" if kind == "as predicted" else f"confidence {own['confidence']:g}",
                name,
                f"{each['kept']} of {each['designs']} ({each['different']} different)",
                " to ".join(f"{100 * end:.1f}" for end in each["clopper_pearson_95"]) + " %",
                f"{each['median_of_limit']:.3f}",
                f"{each['worst_of_limit']:.3f}",
            )
            for kind in ("as predicted", "confident")
            for name, each in (("at the pace of the file", own[kind]), ("as it came", own["as_it_came"][kind]))
        ]
        columns = ("budget holds", "measured", "limits kept", "95 % interval of the share", "median of the limit", "largest")
        loss = f"The confidence costs {100 * own['median_entropy_loss']:.1f} % of the entropy in the median"
        yield f"{text_table(columns, kept_lines, {0, 1})}\n{loss} (margin {own['margin']:.3f})."
    if own := summary.get("flops"):
        gain_lines = [
            (
                f"{each['flops_budget'] / 1e9:g} G",
                f"{each['median_ms_flops']:.1f}",
                f"{each['median_ms_latency']:.1f}",
                f"{each['ratio_measured']:.3f}",
                f"{each['ratios'][0]:.3f} to {each['ratios'][-1]:.3f}",
                f"{each['ratio_predicted']:.3f}",
                each["design_flops"],
                each["design_latency"],
            )
            for each in own
        ]
        heads = (
            "FLOPs",
            "its optimum ms",
            "fastest ms",
            "ratio",
            "of all turns",
            "predicted",
            "optimum by FLOPs",
            "as good, fastest",
        )
        yield text_table(heads, gain_lines, {6, 7})


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("device", metavar="FILE", help="device file of this machine, or the name of a shipped device that it is")
    parser.add_argument("--table", metavar="NAME", help="of its tables (default: the first)")
    parser.add_argument("--parts", default=",".join(_PARTS), metavar="NAMES", help=f"of {', '.join(_PARTS)} (default: all)")
    parser.add_argument("--space", default="fine", metavar="NAME|FILE", help=f"{NAMED_SPACES} (default fine)")
    parser.add_argument("--networks", type=int, default=40, metavar="N", help="random networks (default 40)")
    parser.add_argument(
        "--limits",
        type=int,
        default=60,
        metavar="N",
        help="latency limits [ms] to design for, spread over the range (default 60 of them)",
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, metavar="P", help="probability with which they are to hold (default 0.95)"
    )
    parser.add_argument("--turns", type=int, default=6, metavar="N", help="turns of each pair of part flops (default 6)")
    parser.add_argument(
        "--seconds", type=float, default=0.3, metavar="S", help="to time each network for, in seconds (default 0.3)"
    )
    parser.add_argument(
        "--output", default="results/latency_check", metavar="DIR", help="folder of the results (default results/latency_check)"
    )
    return parser


@dataclass(frozen=True)
class LatencyCheckOptions:
    """What the study was asked for, see --help; ValueError for an unknown part or a number out of range."""

    device: str
    table: str | None
    parts: str
    space: str
    networks: int
    limits: int
    confidence: float
    turns: int
    seconds: float
    output: str

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= set(_PARTS):
            raise ValueError(f"--parts is {self.parts!r}; expected some of {', '.join(_PARTS)}")
        for flag, number, least in (("networks", self.networks, 2), ("limits", self.limits, 2), ("turns", self.turns, 1)):
            if number < least:
                raise ValueError(f"--{flag} is {number}; expected at least {least}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")


def check_of(options: LatencyCheckOptions) -> Check:
    """What a command line asks for; ValueError for a table, confidence or space that does not fit."""
    table: LatencyTable = read_device(options.device).table(options.table)
    table.margin(options.confidence)
    space, latency = read_space(options.space), Latency(table)
    for part in space.parts:
        latency.check(part)
    return Check(space, latency, options.networks, options.limits, options.confidence, options.turns, options.seconds)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(LatencyCheckOptions, command_line(), arguments)
    check = check_of(options)
    from hardware_models.engines import engine_of
    from merino_net.training.allocator import keep_memory

    engine = engine_of(check.latency.table)
    folder = output_folder(options.output)
    file = RowFile(folder / "rows.jsonl")
    setting = setting_of(check.space.parts)
    begin(file, check, options.space if options.space in SPACES else fingerprint(check.space))
    plan = planned_rows(check, options.parts.split(","))
    keep_memory()
    measure_plan(plan, engine, check, file, lambda text: drawn_design(text, setting))
    summary = check_summary(check, plan, file.rows) | {
        "provenance": provenance(1, ("numpy", "scipy", "torch", "transformers", "onnxruntime"))
    }
    print(check_text(summary))
    write_json(folder / "summary.json", summary)
    from studies.latency_check.figures import draw_check

    steady = steadiest(file.rows, _measured_key, check.pace_ms)
    save_figure(draw_check(summary, [row | _seen(steady[_key(row)]) for row in plan]), folder / "latency_check.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, latency_check.png")
    return ExitCode.DONE
