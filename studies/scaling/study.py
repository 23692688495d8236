"""How solvers scale: time to proof of every exact one, and loss of every heuristic at equal time, as the space grows.

    python -m studies.scaling
    python -m studies.scaling --sweeps blocks,menu --solvers dp,highs,ea --seconds 60 --heuristic-seconds 1,10

Six sweeps, three of each form. *Composite*: the effective entropy; from one base instance, N = 4 blocks with the paper's menu of 60
items and a FLOPs budget, more blocks, a longer menu, further budgets. *Additive*: scores and costs that add up over layers, as in
score tables; more layers of 16 variants, and more items and more budgets for 24 layers of random items. An exact solver that does
not prove at one size is not tried on larger ones of the sweep. Heuristics take part in the composite sweeps.
Writes rows.jsonl (a finished run is never run twice), summary.json and scaling.png, which `studies.scaling.figures` draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from formulation import (
    Block,
    Budget,
    Combine,
    DesignProblem,
    EffectiveEntropy,
    Menu,
    NotSeparable,
    Quantity,
    SearchSpace,
    Separable,
)
from formulation.architecture import Setting
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.layer import layer_of
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from formulation.records.rows import Row, RowFile
from formulation.score_table import OptionSpace
from formulation.table import evaluator
from hardware_models import Flops, Params
from solvers import EngineMissing, EvolutionaryAlgorithm, GeneticAlgorithm, RandomSearch, Solver
from solvers.names import SOLVERS
from studies.compare_solvers.cells import PROVED, Cell, best_bound, loss_at, resumed, run_cell
from studies.exact_methods.instances import layer_variants, random_items


@dataclass(frozen=True)
class KeyValueCache(Separable):
    """Numbers kept per token while a text is generated: keys and values of every layer application."""

    name = "kv cache"
    unit = "numbers/token"

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * layer_of(block, setting).cache_width


@dataclass(frozen=True)
class LargestLayer(Separable):
    """Parameters of the largest layer: what fast memory must hold where layers are streamed."""

    name = "largest layer"
    unit = "parameters"
    combine = Combine.MAX

    def block(self, block: Block, setting: Setting) -> float:
        return layer_of(block, setting).parameters


@dataclass(frozen=True)
class AttentionProducts(Separable):
    """Multiplications a token of the attention maps of every layer application: 4·Σ_i L_i E_i² in the family `merino`."""

    name = "attention products"
    unit = "multiplications/token"

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * layer_of(block, setting).attention_weights


MENUS = (
    Menu((512, 768, 1024), (1, 2), (2, 4)),
    Menu((512, 640, 768, 896, 1024), (1, 2), (2, 3, 4)),
    Menu((512, 640, 768, 896, 1024), (1, 1.5, 2), (1, 2, 3, 4)),
    Menu(tuple(range(384, 1025, 128)), (1, 1.5, 2, 3), tuple(range(1, 6))),
    Menu(tuple(range(256, 1025, 128)), (1, 1.5, 2, 3, 4), tuple(range(1, 7))),
    Menu(tuple(range(256, 1025, 64)), (1, 1.5, 2, 3, 4), tuple(range(1, 7))),
)
"""12, 30, 60, 120, 210 and 390 items, each menu within the next; the third is that of `paper_space`, the last of `fine_space`."""
_BASE_BLOCKS, _BASE_MENU = 4, MENUS[2]
_MOST_BLOCKS = 24
"""Up to which the default β is small enough for the base menu."""

QUANTILES: tuple[tuple[Quantity, float], ...] = (
    (Flops(), 0.25),
    (KeyValueCache(), 0.5),
    (Params(), 0.03),
    (LargestLayer(), 0.05),
    (AttentionProducts(), 0.234),
)
"""The K-th budget allows a quantity its value at this quantile of `_SAMPLE` designs drawn uniformly from the instance's own space.

So a FLOPs budget leaves a quarter of every space. The other quantiles were set so that on the base space with K = 1 … 5 budgets
each one binds: without it the optimum is larger (a test proves it). They differ, because uniform designs are wider and shallower
than good ones.
"""
_SAMPLE, _SAMPLE_SEED = 20_000, 0
RULE = (
    "upper of each budget: the value of its quantity at quantile "
    + ", ".join(f"{share:g} ({quantity.name})" for quantity, share in QUANTILES)
    + f" of {_SAMPLE:,} designs drawn uniformly from the instance's own space, seed {_SAMPLE_SEED}"
)

_ENDLESS = 10**9
HEURISTICS: dict[str, Solver] = {
    "ea": EvolutionaryAlgorithm(iterations=_ENDLESS),
    "ga": GeneticAlgorithm(evaluations=_ENDLESS),
    "random": RandomSearch(samples=_ENDLESS),
}
"""The solvers that prove nothing, without their own end: the time limit alone stops them, so that they meet at equal time."""
_EXACT = ("automatic", "reduction", "counts", "dp", "exhaustive", "highs", "cpsat", "scip", "cbc")
_FULL = tuple(name for name in (*_EXACT, *HEURISTICS) if name in SOLVERS)
_QUICK = ("exhaustive", "dp", "highs", *HEURISTICS)


@dataclass(frozen=True)
class Instance:
    """A problem of a sweep; `size` is what the sweep varies: positions, items at each, or budgets."""

    size: int
    problem: DesignProblem

    @property
    def title(self) -> str:
        """Name in rows: the same in every sweep that holds the problem."""
        space = self.problem.space
        positions = "layers" if isinstance(space, OptionSpace) else "blocks"
        return f"{len(space.menus)} {positions}, {len(space.menus[0])} items, {counted(len(self.problem.subject_to), 'budget')}"


@dataclass(frozen=True)
class Sweep:
    """Instances of growing size.

    Attributes:
        name: on the command line and in the results.
        varies: what grows.
        instances: small ones first.
        additive: whether objective and costs add up over positions; heuristics take no part then.
    """

    name: str
    varies: str
    instances: tuple[Instance, ...]
    additive: bool = False


@cache
def sized_problem(blocks: int = _BASE_BLOCKS, menu: Menu = _BASE_MENU, budgets: int = 1) -> DesignProblem:
    """The problem with that many blocks and budgets, the uppers by the rule at `QUANTILES`.

    β is 1/16, and 1/128 beyond 24 blocks, where the deepest designs would have γ ≥ 1 with the former.
    """
    space = SearchSpace((menu,) * blocks)
    sample = space.sample(np.random.default_rng(_SAMPLE_SEED), _SAMPLE)
    uppers = [
        # A value that a design has, not one between two: "lower".
        Budget(quantity, float(np.quantile(evaluator(quantity, space)(sample), share, method="lower")))
        for quantity, share in QUANTILES[:budgets]
    ]
    entropy = EffectiveEntropy() if blocks <= _MOST_BLOCKS else EffectiveEntropy(beta=1 / 128)
    return DesignProblem(space, entropy, tuple(uppers))


def _blocks_sweep(quick: bool) -> Sweep:
    counts = (2, 3, 4) if quick else (2, 3, 4, 6, 8, 12, 24, 80, 160)
    return Sweep("blocks", "blocks N", tuple(Instance(n, sized_problem(blocks=n)) for n in counts))


def _menu_sweep(quick: bool) -> Sweep:
    menus = MENUS[:3] if quick else MENUS
    return Sweep("menu", "menu items per block", tuple(Instance(len(menu), sized_problem(menu=menu)) for menu in menus))


def _budgets_sweep(quick: bool) -> Sweep:
    counts = range(1, 4 if quick else len(QUANTILES) + 1)
    return Sweep("budgets", "budgets K", tuple(Instance(k, sized_problem(budgets=k)) for k in counts))


_RANDOM_LAYERS, _RANDOM_ITEMS, _RANDOM_BUDGETS = 24, 45, 3
_SEED = 0


def _layers_sweep(quick: bool) -> Sweep:
    counts = (2, 4, 8) if quick else (2, 4, 8, 16, 32, 80, 160)
    instances = tuple(Instance(n, layer_variants(n, 2, _SEED)) for n in counts)
    return Sweep("layers", "layers of 16 variants", instances, additive=True)


def _items_sweep(quick: bool) -> Sweep:
    counts = (10, 25) if quick else (10, 25, 50, 100, 200, 400)
    instances = tuple(Instance(items, random_items(_RANDOM_LAYERS, items, _RANDOM_BUDGETS, _SEED)) for items in counts)
    return Sweep("items", f"items of each of {_RANDOM_LAYERS} layers", instances, additive=True)


def _limits_sweep(quick: bool) -> Sweep:
    counts = range(1, 3 if quick else 6)
    instances = tuple(Instance(k, random_items(_RANDOM_LAYERS, _RANDOM_ITEMS, k, _SEED)) for k in counts)
    return Sweep("limits", f"budgets, {_RANDOM_LAYERS} layers of {_RANDOM_ITEMS} items", instances, additive=True)


SWEEPS: dict[str, Callable[[bool], Sweep]] = {
    "blocks": _blocks_sweep,
    "menu": _menu_sweep,
    "budgets": _budgets_sweep,
    "layers": _layers_sweep,
    "items": _items_sweep,
    "limits": _limits_sweep,
}


@dataclass(frozen=True)
class ScalingPlan:
    """What the command line asks for.

    Attributes:
        exact: solvers by their name on the command line.
        heuristics: solvers by their name on the command line.
        seconds: time limit of a run of an exact solver.
        checkpoints: times at which the heuristics are compared, ascending; each runs once per seed, until the last of them.
        seeds: of each heuristic.
    """

    sweeps: tuple[Sweep, ...]
    exact: Mapping[str, Solver]
    heuristics: Mapping[str, Solver]
    seconds: float
    checkpoints: tuple[float, ...]
    seeds: int

    def entrants(self, sweep: Sweep) -> tuple[str, ...]:
        """The solvers that take part in a sweep."""
        return tuple(self.exact) if sweep.additive else (*self.exact, *self.heuristics)

    def cells(self, instance: Instance, name: str) -> list[Cell]:
        """The runs of one solver on one instance."""
        if name in self.exact:
            return [Cell(instance.title, instance.problem, name, self.exact[name], 0, self.seconds)]
        solver, seconds = self.heuristics[name], self.checkpoints[-1]
        return [Cell(instance.title, instance.problem, name, solver, seed, seconds) for seed in range(self.seeds)]


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--sweeps", default=",".join(SWEEPS), metavar="NAMES", help=f"of {', '.join(SWEEPS)} (default: all)")
    parser.add_argument("--solvers", default=None, metavar="NAMES", help=f"of {', '.join(SOLVERS)} (default: {', '.join(_FULL)})")
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="limit of a run of an exact solver in seconds (default 20)"
    )
    parser.add_argument(
        "--heuristic-seconds",
        default=None,
        metavar="S,S",
        help="times in seconds at which heuristics are compared; each runs until the last (default 1,5; with --quick 0.5)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each heuristic (default 3)")
    parser.add_argument(
        "--output", default="results/scaling", metavar="DIR", help="folder of the results (default results/scaling)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, the quick solvers, one seed, 2 s a run: under a minute")
    return parser


@dataclass(frozen=True)
class ScalingOptions:
    """What the study was asked for, see --help; ValueError for a number out of range."""

    sweeps: str
    solvers: str | None
    seconds: float
    heuristic_seconds: str | None
    seeds: int
    output: str
    quick: bool

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"--seeds is {self.seeds}; expected at least 1")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")


def _plan_of(options: ScalingOptions) -> ScalingPlan:
    """The plan of a command line; ValueError naming the flag that is wrong."""
    times = options.heuristic_seconds
    checkpoints = _positive_numbers("--heuristic-seconds", ("0.5" if options.quick else "1,5") if times is None else times)
    sweeps = [chosen("sweep", name, SWEEPS) for name in _names(options.sweeps)]
    default = _QUICK if options.quick else _FULL
    names = default if options.solvers is None else _names(options.solvers)
    entrants = {name: chosen("solver", name, SOLVERS) for name in names}
    return ScalingPlan(
        tuple(sweep(options.quick) for sweep in sweeps),
        {name: entrant.solver for name, entrant in entrants.items() if name not in HEURISTICS},
        {name: HEURISTICS[name] for name in entrants if name in HEURISTICS},
        min(options.seconds, 2.0) if options.quick else options.seconds,
        checkpoints,
        1 if options.quick else options.seeds,
    )


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _positive_numbers(flag: str, text: str) -> tuple[float, ...]:
    """The numbers of a comma-separated list, ascending, without repeats."""
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{flag} is {text!r}; expected positive numbers such as 1,10")
    return tuple(numbers)


@dataclass(frozen=True)
class ScalingRows:
    """What was run of a plan.

    Attributes:
        rows: by sweep and size.
        missing: the reason for each solver that is not installed.
        unread: why a solver cannot read the problems of a sweep, by the two.
    """

    rows: Mapping[tuple[str, int], Sequence[Row]]
    missing: Mapping[str, str]
    unread: Mapping[tuple[str, str], str] = field(default_factory=dict)


def run_plan(plan: ScalingPlan, file: RowFile) -> ScalingRows:
    """Run what the file does not hold yet, sweep by sweep, by growing size.

    An exact solver that did not prove at a size is left out of the rest of the sweep. That follows from the rows alone, so a
    stopped study goes on as one that never stopped. Raises KeyboardInterrupt when the user stops a run: it is not kept.
    """
    rows: dict[tuple[str, int], list[Row]] = {}
    missing: dict[str, str] = {}
    unread: dict[tuple[str, str], str] = {}
    planned = [
        cell
        for sweep in plan.sweeps
        for instance in sweep.instances
        for name in plan.entrants(sweep)
        for cell in plan.cells(instance, name)
    ]
    with resumed(planned, file) as resume:
        for sweep in plan.sweeps:
            gave_up: set[str] = set()
            for instance in sweep.instances:
                own = rows.setdefault((sweep.name, instance.size), [])
                for name in plan.entrants(sweep):
                    cells = plan.cells(instance, name)
                    if name in gave_up or name in missing:
                        resume.skip(cell.key for cell in cells)
                        continue
                    try:
                        new = [run_cell(cell, resume) for cell in cells]
                    except EngineMissing as error:
                        missing[name] = str(error)
                        resume.skip(cell.key for cell in cells)
                    except NotSeparable as error:
                        gave_up.add(name)
                        unread[sweep.name, name] = str(error)
                        resume.skip(cell.key for cell in cells)
                    else:
                        own += new
                        if name in plan.exact and new[0]["status"] not in PROVED:
                            gave_up.add(name)
    return ScalingRows(rows, missing, unread)


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, Any] | None:
    """seconds ≈ coefficient · size^exponent by least squares on logarithms; None for fewer than three different sizes.

    `from` and `to` are the range it was fitted over; `spread` is the typical factor between a time and the fit, the exponential
    of the root mean square of their logarithms' difference.
    """
    if len(set(sizes)) < 3:
        return None
    x, y = np.log(np.array(sizes, dtype=float)), np.log(np.array(seconds, dtype=float))
    exponent, constant = np.polyfit(x, y, 1)
    spread = math.exp(math.sqrt(np.mean((y - exponent * x - constant) ** 2)))
    return {
        "exponent": float(exponent),
        "coefficient": math.exp(constant),
        "spread": spread,
        "points": len(sizes),
        "from": min(sizes),
        "to": max(sizes),
    }


def scaling_summary(plan: ScalingPlan, results: ScalingRows) -> dict[str, Any]:
    """The numbers of the study, ready for JSON."""
    distributions = {name for solver in (*plan.exact.values(), *plan.heuristics.values()) for name in solver.distributions}
    return {
        "provenance": provenance(0, ("numpy", *sorted(distributions))),
        "rule": RULE,
        "seconds_limit": plan.seconds,
        "heuristic_seconds": list(plan.checkpoints),
        "seeds": plan.seeds,
        "missing": dict(results.missing),
        "sweeps": [_summary_of(sweep, plan, results) for sweep in plan.sweeps],
    }


def _summary_of(sweep: Sweep, plan: ScalingPlan, results: ScalingRows) -> dict[str, Any]:
    runs = {size: own for (name, size), own in results.rows.items() if name == sweep.name}
    instances = [_instance_record(instance, runs[instance.size]) for instance in sweep.instances]
    tried = {row["option"] for own in runs.values() for row in own}
    return {
        "sweep": sweep.name,
        "varies": sweep.varies,
        "instances": instances,
        "additive": sweep.additive,
        "unread": {name: reason for (of, name), reason in results.unread.items() if of == sweep.name},
        "exact": [_exact_record(name, instances, runs) for name in plan.exact if name in tried],
        "heuristics": [
            _heuristic_record(name, seconds, instances, runs)
            for name in plan.heuristics
            if name in tried
            for seconds in plan.checkpoints
        ],
    }


def _instance_record(instance: Instance, rows: Sequence[Row]) -> dict[str, Any]:
    space, subject_to = instance.problem.space, instance.problem.subject_to
    optima = [row["objective"] for row in rows if row["status"] == "optimal"]
    empty = any(row["status"] == "infeasible" for row in rows)
    return {
        "size": instance.size,
        "blocks": len(space.menus),
        "items": len(space.menus[0]),
        "designs": space.size,
        "budgets": [{"quantity": b.quantity.name, "upper": b.upper, "unit": b.quantity.unit} for b in subject_to],
        "optimum": max(optima, default=None),
        "bound": best_bound(rows),
        "proofs_agree": not (optima and (empty or max(optima) - min(optima) > 1e-6 * abs(max(optima)))),
    }


def _exact_record(name: str, instances: Sequence[Row], runs: Mapping[int, Sequence[Row]]) -> dict[str, Any]:
    tried = [(each, row) for each in instances for row in runs[each["size"]] if row["option"] == name]
    proved = [(each, row) for each, row in tried if row["status"] in PROVED]
    failed = next(((each, row) for each, row in tried if row["status"] not in PROVED), None)
    seconds = [row["seconds"] for _, row in proved]
    return {
        "solver": tried[0][1]["solver"],
        "option": name,
        "proved": [{"size": each["size"], "designs": each["designs"], "seconds": row["seconds"]} for each, row in proved],
        "gave_up": None
        if failed is None
        else {"size": failed[0]["size"], **{key: failed[1][key] for key in ("seconds", "objective", "bound", "gap", "message")}},
        "growth": power_law([each["size"] for each, _ in proved], seconds),
        "growth_in_designs": power_law([each["designs"] for each, _ in proved], seconds),
    }


def _heuristic_record(name: str, seconds: float, instances: Sequence[Row], runs: Mapping[int, Sequence[Row]]) -> dict[str, Any]:
    """Relative losses (reference − incumbent) / reference per seed, the reference being the optimum or else the best bound.

    A loss is None if the run had found nothing by then, and `losses` is None if there is no reference. The median of the
    losses counts what was not found as infinite, and is None if it is.
    """
    found = []
    for each in instances:
        own = [row for row in runs[each["size"]] if row["option"] == name]
        reference = each["bound"] if each["optimum"] is None else each["optimum"]
        record: dict[str, Any] = {"size": each["size"], "losses": None, "median": None}
        if reference is not None:
            # A proof leaves a relative gap of 1e-6, so that a heuristic may be better by a hair.
            losses = [None if (loss := loss_at(row, seconds, reference)) is None else max(loss, 0.0) for row in own]
            middle = median(math.inf if loss is None else loss for loss in losses)
            record |= {"losses": losses, "median": middle if math.isfinite(middle) else None}
        found.append(record)
    solver = next(row["solver"] for row in runs[instances[0]["size"]] if row["option"] == name)
    return {"solver": solver, "option": name, "seconds": seconds, "loss": found}


def sweep_table(sweep: dict[str, Any]) -> str:
    """The table of one sweep: seconds to proof or what was left when a solver gave up, and median losses of the heuristics."""
    sizes = [each["size"] for each in sweep["instances"]]
    lines = [["designs", *(f"{each['designs']:.3g}" for each in sweep["instances"]), "", ""]]
    for each in sweep["exact"]:
        cells = {point["size"]: f"{point['seconds']:.3f} s" for point in each["proved"]}
        if (left := each["gave_up"]) is not None:
            cells[left["size"]] = _gap_text(left)
        growth = [_growth_text(each["growth"]), _growth_text(each["growth_in_designs"])]
        lines.append([each["solver"], *(cells.get(size, "") for size in sizes), *growth])
    for each in sweep["heuristics"]:
        lines.append([f"{each['solver']}, {each['seconds']:g} s", *(_loss_text(point) for point in each["loss"]), "", ""])
    header = [sweep["varies"], *map(str, sizes), "seconds ~ size^", "seconds ~ designs^"]
    return text_table(header, lines, {0})


def _gap_text(left: dict[str, Any]) -> str:
    if left["objective"] is None:
        return "found none"
    return "no bound" if left["gap"] is None else f"gap {100 * left['gap']:.2g} %"


def _gave_up_text(varies: str, each: dict[str, Any]) -> str:
    left = each["gave_up"]
    return f"{each['solver']} gave up at {varies} = {left['size']} after {left['seconds']:.1f} s: {left['message']}"


def _growth_text(growth: dict[str, Any] | None) -> str:
    return "-" if growth is None else f"{growth['exponent']:.2f} over {growth['from']:.3g}…{growth['to']:.3g}"


def _loss_text(point: dict[str, Any]) -> str:
    if point["losses"] is None:
        return "no bound"
    return "found none" if point["median"] is None else f"{100 * point['median']:.3f} %"


def scaling_text(summary: dict[str, Any]) -> str:
    """The study for people."""
    parts = [summary["rule"][0].upper() + summary["rule"][1:] + "."]
    for sweep in summary["sweeps"]:
        parts.append(
            f"{sweep['sweep']}: seconds to proof, gap of the first run without one ({summary['seconds_limit']:g} s)"
            + ("" if sweep["additive"] else f", then median loss of each heuristic, {summary['seeds']} seeds")
            + f"\n{sweep_table(sweep)}"
        )
        lines = [_gave_up_text(sweep["varies"], each) for each in sweep["exact"] if each["gave_up"] is not None]
        lines += [f"{name} was not run on {sweep['sweep']}: {reason}" for name, reason in sweep["unread"].items()]
        torn = [str(each["size"]) for each in sweep["instances"] if not each["proofs_agree"]]
        lines += [f"THE PROOFS DISAGREE at {sweep['varies']} = {', '.join(torn)}"] if torn else []
        parts += ["\n".join(lines)] if lines else []
    parts += [f"{SOLVERS[name].solver.name} was not run: {reason}" for name, reason in summary["missing"].items()]
    return "\n\n".join(parts)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(ScalingOptions, command_line(), arguments)
    plan = _plan_of(options)
    folder = output_folder(options.output)
    results = run_plan(plan, RowFile(folder / "rows.jsonl"))
    if not any(results.rows.values()):
        raise EngineMissing("; ".join(results.missing.values()))
    summary = scaling_summary(plan, results)
    print(f"\n{scaling_text(summary)}")
    write_json(folder / "summary.json", summary)
    from studies.scaling.figures import draw_scaling

    save_figure(draw_scaling(summary), folder / "scaling.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, scaling.png")
    return ExitCode.DONE
