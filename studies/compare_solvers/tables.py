"""The comparison in words: tables of proofs, losses and published designs, and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from formulation import PUBLISHED, Architecture, Budget, DesignProblem, EffectiveEntropy, SearchSpace
from formulation.command.words import text_table
from formulation.published import NAMED_PARAMS
from formulation.records.rows import Row
from hardware_models.names import COSTS, read_quantity
from solvers import DynamicProgramming, Limits, solve
from solvers.names import SOLVERS
from studies.compare_solvers.cells import STATUS_WORDS, Cell, best_bound, loss_at, near_seconds


def published_rows(cell: Cell, bound: float | None) -> list[Row]:
    """The published designs as rows of a problem: whether they meet its budgets, and their gap to its best proven bound."""
    rows = []
    for name, design in PUBLISHED.items():
        objective = cell.problem.objective(design)
        kept = all(budget.allows(budget.value(design)) for budget in cell.problem.subject_to)
        comparable = bound is not None and kept and design in cell.problem.space
        gap = max(bound - objective, 0) / objective if comparable and bound is not None else None
        rows.append(
            {
                "problem": cell.title,
                "solver": f"published {name}",
                "seed": None,
                "status": "feasible" if kept else "over budget",
                "objective": objective,
                "bound": bound if comparable else None,
                "gap": gap,
                "seconds": None,
                "evaluations": None,
                "widths": list(design.widths),
                "ffn_widths": list(design.ffn_widths),
                "depths": list(design.depths),
                "usage": {budget.quantity.name: budget.value(design) for budget in cell.problem.subject_to},
            }
        )
    return rows


def published_losses(space: SearchSpace, seconds: float) -> list[dict[str, Any]]:
    """Each published design against the optimum of `space` under its own counted FLOPs and parameters, by dynamic programming."""
    quantities = [read_quantity(name) for name in COSTS]
    return [
        _loss(name, design, space, tuple(Budget(quantity, quantity(design)) for quantity in quantities), seconds)
        for name, design in PUBLISHED.items()
    ]


def named_losses(space: SearchSpace, seconds: float) -> list[dict[str, Any]]:
    """Each published design against the optimum under the parameters that its name states, `NAMED_PARAMS`, with nothing shared.

    Once under these alone, and once under its own counted FLOPs as well.
    """
    unshared, params, flops = replace(space, shared=False), read_quantity("params"), read_quantity("flops")
    losses = []
    for name, shared in PUBLISHED.items():
        design = replace(shared, shared=False)
        named = Budget(params, NAMED_PARAMS[name])
        for budgets in ((named,), (named, Budget(flops, flops(design)))):
            losses.append(_loss(name, design, unshared, budgets, seconds))
    return losses


def _loss(name: str, design: Architecture, space: SearchSpace, budgets: tuple[Budget, ...], seconds: float) -> dict[str, Any]:
    """A design against the optimum under budgets."""
    objective = EffectiveEntropy()
    solution = solve(DesignProblem(space, objective, budgets), DynamicProgramming(), Limits(seconds=seconds))
    if solution.interrupted:
        raise KeyboardInterrupt
    value, best = objective(design), solution.objective
    return {
        "design": name,
        "objective": value,
        **{budget.quantity.name: budget.upper for budget in budgets},
        "optimum_status": solution.status.value,
        "optimum": best,
        "optimum_bound": solution.bound,
        "loss": (best - value) / best if best is not None and design in space else None,
        "optimum_design": None if solution.architecture is None else str(solution.architecture),
        "seconds": solution.seconds,
    }


def _design_text(row: Row) -> str:
    if row["widths"] is None:
        return "none"
    return " ".join(f"{e}/{f}x{d}" for e, f, d in zip(row["widths"], row["ffn_widths"], row["depths"], strict=True))


def typical(rows: Sequence[Row]) -> list[Row]:
    """The rows of one problem, with one row for the repeats of a solver without chance: the one of median time."""
    repeats: dict[str, list[Row]] = {}
    for row in rows:
        repeats.setdefault(f"{row['option']} {row['seed'] if SOLVERS[row['option']].seeded else ''}", []).append(row)
    return [sorted(group, key=lambda row: row["seconds"])[(len(group) - 1) // 2] for group in repeats.values()]


def problem_table(rows: Sequence[Row], published: Sequence[Row], missing: dict[str, str]) -> str:
    """The table of one problem."""
    bound = best_bound(rows)
    best = max((row["objective"] for row in rows if row["objective"] is not None), default=None)
    proved = min((row["seconds"] for row in rows if row["status"] == "optimal"), default=None)
    lines = []
    for row in sorted(typical(rows), key=lambda row: (row["status"] != "optimal", row["seconds"])):
        gap = None if bound is None or row["objective"] is None else max(bound - row["objective"], 0) / abs(row["objective"])
        near = None if best is None else near_seconds(row, best)
        then = None if proved is None or best is None else loss_at(row, proved, best)
        seeded = SOLVERS[row["option"]].seeded
        lines.append(
            [
                row["solver"] + (f" #{row['seed']}" if seeded else ""),
                STATUS_WORDS[row["status"]],
                "-" if row["objective"] is None else f"{row['objective']:,.1f}",
                "-" if gap is None else f"{100 * gap:.4f} %",
                "-" if near is None else f"{near:.3f}",
                "-" if then is None else f"{100 * then:.3f} %",
                f"{row['seconds']:.3f}",
                "-" if row.get("peak_memory_bytes") is None else f"{row['peak_memory_bytes'] / 2**20:,.0f}",
                f"{row['evaluations']:,}",
                _design_text(row),
            ]
        )
    for row in published:
        gap_text = "-" if row["gap"] is None else f"{100 * row['gap']:.4f} %"
        lines.append([row["solver"], row["status"], f"{row['objective']:,.1f}", gap_text, *["-"] * 5, _design_text(row)])
    lines += [[SOLVERS[name].solver.name, "not run", *["-"] * 7, reason] for name, reason in missing.items()]
    header = [
        "solver",
        "result",
        "effective entropy",
        "gap to bound",
        "s to 0.1 %",
        "loss at t*",
        "total s",
        "peak MiB",
        "evaluations",
        "design: width/ffn x depth",
    ]
    table = text_table(header, lines, {0, 1, 9})
    return table if proved is None else f"{table}\nt*: the first proof, after {proved:.3g} s"


def losses_table(losses: Sequence[dict[str, Any]]) -> str:
    """The published designs against the optimum under budgets."""
    lines = [
        [
            loss["design"],
            f"{loss['objective']:,.1f}",
            f"{loss['flops'] / 1e9:.2f} G" if "flops" in loss else "-",
            f"{loss['params'] / 1e6:.2f} M",
            "-" if loss["optimum"] is None else f"{loss['optimum']:,.1f}",
            STATUS_WORDS[loss["optimum_status"]],
            "-" if loss["loss"] is None else f"{100 * loss['loss']:.2f} %",
            loss["optimum_design"] or "none",
        ]
        for loss in losses
    ]
    header = [
        "published design",
        "effective entropy",
        "FLOPs",
        "params",
        "optimum there",
        "result",
        "loss",
        "optimal design",
    ]
    return text_table(header, lines, {0, 5, 7})


def proofs_agree(rows: Sequence[Row]) -> bool:
    """Whether what the runs on one problem proved can be true together."""
    optima = [row["objective"] for row in rows if row["status"] == "optimal"]
    empty = any(row["status"] == "infeasible" for row in rows)
    return not (optima and (max(optima) - min(optima) > 1e-6 * abs(max(optima)) or empty))


def sentence(rows: Sequence[Row], problems: Sequence[str]) -> str:
    """What the comparison shows, in one sentence."""
    by_problem = {title: typical([row for row in rows if row["problem"] == title]) for title in problems}
    proofs: dict[str, list[float]] = {}
    heuristic: dict[str, list[bool]] = {}
    agreed, proven = True, 0
    for own in by_problem.values():
        optima = [row["objective"] for row in own if row["status"] == "optimal"]
        empty = any(row["status"] == "infeasible" for row in own)
        agreed &= proofs_agree(own)
        proven += bool(optima) or empty
        for row in own:
            if row["status"] in ("optimal", "infeasible"):
                proofs.setdefault(row["solver"], []).append(row["seconds"])
            elif SOLVERS[row["option"]].seeded and optima:
                heuristic.setdefault(row["solver"], []).append(near_seconds(row, max(optima)) is not None)
    if not proofs:
        return f"No solver proved an optimum on any of the {len(problems)} problems within its time limit."
    everywhere = {name: median(times) for name, times in proofs.items() if len(times) >= len(problems)}
    text = f"{proven} of {len(problems)} problems were settled with proof"
    text += " and every proof agrees" if agreed else ", BUT THE PROOFS DISAGREE"
    if everywhere:
        ranked = sorted(everywhere, key=everywhere.__getitem__)
        text += f"; {ranked[0]} proves fastest (median {everywhere[ranked[0]]:.3g} s)"
        text += "".join(f", {everywhere[name] / everywhere[ranked[0]]:.1f} times faster than {name}" for name in ranked[1:2])
        text += (
            f" and {everywhere[ranked[-1]] / everywhere[ranked[0]]:.0f} times faster than {ranked[-1]}" if len(ranked) > 2 else ""
        )
    if heuristic:
        near = ", ".join(f"{name} in {sum(hits)} of {len(hits)}" for name, hits in heuristic.items())
        text += f"; without proof, these runs came within 0.1 % of the optimum: {near}"
    return text + "."
