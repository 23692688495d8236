"""What `python -m studies.design` says, in words and tables; what it writes is `studies.design_file`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context

from formulation import Agreement, Architecture, Budget, DesignProblem
from formulation.command.words import counted, text_table
from hardware_models import Latency
from solvers import Count, Diagnosis, Need, Price, Solution, Solver, Status
from solvers.base import broken_budgets
from studies.compare_solvers.study import NEAR
from studies.problems import budget_text, number_text
from studies.quantities import quantity_text

_DESIGN = "design: width/ffn x depth"
"""Heads the column of designs."""


def short(value: float, digits: int = 4, rounding: str = ROUND_HALF_EVEN) -> str:
    """A number for people, rounded to nearest or as `decimal` names it: 60.13 G, 407.3 M."""
    # Rounding up or down starts from 12 digits, as budgets do: 0.1 + 0.2 is 0.3.
    return number_text(float(Context(prec=digits, rounding=rounding).create_decimal(f"{value:.12g}")))


def change_text(value: float, digits: int = 4) -> str:
    """A change of a budget with its sign, rounded up so that it suffices: +0.13 G, −2 G."""
    if not value:
        return "0"
    return f"+{short(value, digits, ROUND_CEILING)}" if value > 0 else f"−{short(-value, digits, ROUND_FLOOR)}"


def per_cent(value: float, base: float) -> str:
    """Change from `base` to `value` in per cent, with its sign; empty where the base is 0, and "same" where they agree."""
    if not base:
        return ""
    change = 100 * (value - base) / abs(base)
    if abs(change) < 1e-7:
        return "same"
    return f"{change:+.2g} %".replace("-", "−") if abs(change) < 1 else f"{change:+.1f} %".replace("-", "−")


def proof_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The status of a solution in words, with its bound, gap and time, and what its budgets rest on where that is doubtful."""
    tables = dict.fromkeys(one.quantity.table for one in problem.subject_to if isinstance(one.quantity, Latency))
    doubts = [f"What is proved holds for the latencies of a table: {table.doubt}." for table in tables if table.doubt]
    return "\n".join([_status_text(problem, solution, solver), *doubts])


def _status_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    unit, seconds = problem.maximize.unit, f"{solution.seconds:.2f} s, {solver.name}"
    if solution.status is Status.OPTIMAL:
        gap = f"gap {solution.gap:.1g}; {seconds}"
        return f"Proved optimal: no design within the budgets exceeds {solution.bound:,.2f} {unit} ({gap})."
    if solution.status is Status.INFEASIBLE:
        return f"Proved: no design keeps the budgets ({seconds})."
    if solution.status is Status.UNKNOWN:
        return f"No design found and nothing proved ({seconds}: {solution.message})."
    if solution.bound is None or solution.gap is None:
        return f"Not proved optimal, and no bound ({seconds}: {solution.message})."
    missing = f"{100 * solution.gap:.2g}" if solution.gap < 1 else f"{100 * solution.gap:,.0f}"
    return (
        f"Not proved optimal: no design exceeds {solution.bound:,.2f} {unit}, so at most {missing} % are missing "
        f"({seconds}: {solution.message})."
    )


def design_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The design as a table, its objective and its proof."""
    assert solution.architecture is not None
    blocks = [
        [str(i), str(b.width), *((str(b.ffn_width), f"{b.ffn_ratio:g}") if b.depth else ("-", "-")), str(b.depth), str(b.heads)]
        for i, b in enumerate(solution.architecture.blocks, start=1)
    ]
    lines = [
        text_table(["block", "width E", "FFN width F", "F / E", "layers L", "heads"], blocks, set()),
        f"\n{problem.maximize.name} {solution.objective:,.2f} {problem.maximize.unit}",
    ]
    reported = problem.evaluate(solution.architecture).report
    lines += [
        f"{quantity_text(quantity)} {number_text(usage.value)} {usage.unit}"
        for quantity, usage in zip(problem.report, reported, strict=True)
    ]
    return "\n".join([*lines, proof_text(problem, solution, solver)])


def price_text(problem: DesignProblem, prices: Sequence[Price]) -> str:
    """What each budget uses, whether it binds, and the steps around it."""
    if not prices:
        return ""
    binding = {True: "binds", False: "does not bind", None: "not settled"}
    rows = [
        [
            budget_text(price.budget),
            number_text(price.present.upper),
            f"{short(price.slack, 4, ROUND_FLOOR)} ({100 * price.slack / price.budget.upper if price.budget.upper else 0:.2g} %)",
            binding[price.binds] + ("" if price.present.proved else "; whether less suffices is open"),
        ]
        for price in prices
    ]
    parts = [text_table(["budget", "needed", "slack", ""], rows, {0, 3})]
    for price in prices:
        parts.append(_steps_text(problem, price))
    if any(price.limited for price in prices):
        ended = "Ctrl-C" if any(price.interrupted for price in prices) else "The time limit"
        parts.append(
            f"{ended} ended the prices: steps may be missing, and what is not proved may not be best; give more --seconds."
        )
    return "\n" + "\n\n".join(parts)


def _steps_text(problem: DesignProblem, price: Price) -> str:
    quantity, objective = price.budget.quantity, problem.maximize
    rows = []
    for point in price.breakpoints:
        here = point is price.present
        rows.append(
            [
                number_text(point.upper),
                "needed now" if here else change_text(point.upper - price.budget.upper),
                f"{point.objective:,.2f}",
                "" if here else per_cent(point.objective, price.present.objective),
                str(point.architecture),
                "" if point.proved else "not proved",
            ]
        )
    header = [f"{quantity_text(quantity)} budget from", "to the budget", objective.name, "change", _DESIGN, ""]
    text = f"Steps of {budget_text(price.budget)}, the other budgets kept\n" + text_table(header, rows, {4, 5})
    words = []
    if price.above:
        first = price.above[0]
        gain = per_cent(first.objective, price.present.objective)
        buys = "buys" if first.proved else "buys at least"
        words.append(f"{change_text(first.upper - price.budget.upper)} {quantity.unit} {buys} {gain} {objective.name}")
    if price.below:
        loss = per_cent(price.below[0].objective, price.present.objective)
        costs = "costs" if price.below[0].proved else "costs at most"
        words.append(f"less than {number_text(price.present.upper)} {quantity.unit} {costs} {loss.removeprefix('−')}")
    if price.binds is False:
        words.append("more of it buys nothing")
    elif math.isinf(price.explored) and price.above:
        words.append("more than the highest step buys nothing")
    elif not price.above and price.explored > price.budget.upper:
        words.append(f"nothing more up to {short(price.explored, 6, ROUND_FLOOR)} {quantity.unit}")
    if price.floor:
        words.append(f"below {number_text(price.breakpoints[0].upper)} {quantity.unit} no design keeps the other budgets")
    return text + ("\n" + "; ".join(words) + "." if words else "")


def alternatives_text(problem: DesignProblem, others: Sequence[Solution], differing: int, wanted: int) -> str:
    """The best design and its alternatives as a table, of which `wanted` were asked for."""
    best = others[0]
    assert best.architecture is not None
    assert best.objective is not None
    rows = []
    for number, other in enumerate(others):
        if other.architecture is None or other.objective is None:
            continue
        apart = Agreement(best.architecture).most - Agreement(best.architecture)(other.architecture)
        rows.append(
            [
                str(number) if number else "best",
                f"{other.objective:,.2f}",
                per_cent(other.objective, best.objective) if number else "",
                f"{apart:.0f}" if number else "",
                *(short(usage.value) for usage in other.usage),
                str(other.architecture),
                "" if other.status is Status.OPTIMAL else "not proved",
            ]
        )
    costs = [quantity_text(budget.quantity) for budget in problem.subject_to]
    header = ["", problem.maximize.name, "change", "apart", *costs, _DESIGN, ""]
    proved = all(other.status in (Status.OPTIMAL, Status.INFEASIBLE) for other in others)
    each = "each the best that differs" if proved else "each proved the best where no other word stands, and differing"
    text = f"\nAlternatives, {each} from all above in at least {differing} of {counted(problem.space.decisions, 'decision')}\n"
    text += text_table(header, rows, {0, len(header) - 2, len(header) - 1})
    if others[-1].status is Status.INFEASIBLE:
        text += "\nNo further design differs that much (proved)."
    elif others[-1].architecture is None or len(others) < wanted + 1:
        text += "\nThe search was ended before a further one was found; give more --seconds."
    return text


def near_text(near: Count, solution: Solution) -> str:
    """How many designs are nearly as good; this one is one of them."""
    number = max(near.number, 1)
    designs = f"{counted(number, 'design')} {'lies' if number == 1 else 'lie'} within {100 * NEAR:g} %"
    what = "the optimum" if solution.status is Status.OPTIMAL else "this design, or above it"
    return f"\n{designs} of {what}." if near.exact else f"\nAt least {designs} of {what}; the count was ended, give more --seconds."


def diagnosis_text(problem: DesignProblem, diagnosis: Diagnosis) -> str:
    """Which budgets conflict, what each alone would have to be, and where that is not enough, what would do for all together."""
    names = " and ".join(map(budget_text, diagnosis.conflict))
    alone = [need for need in diagnosis.needs if need.alone is not None]
    if diagnosis.status is Status.UNKNOWN:
        text = "Whether some design keeps the budgets is open; give more --seconds."
    elif len(alone) > 1:
        text = "No design keeps any one of these, whatever the other budgets (proved):"
        for need in alone:
            text += f"\n  {budget_text(need.budget)}; every design needs at least {number_text(need.alone or 0.0)}"
    elif len(diagnosis.conflict) == 1:
        text = f"No design keeps {names}, whatever the other budgets (proved)."
        if alone and alone[0].least is None:
            text += f" Every design needs at least {number_text(alone[0].alone or 0.0)}."
    else:
        text = f"No design keeps {names} together (proved). "
        text += (
            "Any fewer budgets can be kept."
            if diagnosis.smallest
            else "Whether fewer conflict already is open; give more --seconds."
        )
    rows = []
    for need in diagnosis.needs:
        found = need.least is not None and need.objective is not None
        rows.append(
            [
                budget_text(need.budget),
                f"{number_text(need.least)} ({change_text(need.least - need.budget.upper)})" if need.least is not None else "",
                _need_text(need, diagnosis),
                f"{need.objective:,.2f}" if found else "",
                str(need.architecture) if found else "",
            ]
        )
    header = ["budget", "would have to be", "", f"{problem.maximize.name} then", _DESIGN]
    text += f"\n\nIf one budget alone could change\n{text_table(header, rows, {0, 2, 4})}"
    if diagnosis.joint is not None:
        text += f"\n\n{_joint_text(problem, diagnosis, diagnosis.joint)}"
    return text


def _joint_text(problem: DesignProblem, diagnosis: Diagnosis, design: Architecture) -> str:
    """Values of all budgets together that are enough, by a design that shows it."""
    changed = {i: budget.value(design) for i, budget in enumerate(problem.subject_to) if budget in broken_budgets(problem, design)}
    enough = " and ".join(budget_text(Budget(problem.subject_to[i].quantity, value)) for i, value in changed.items())
    least = all(diagnosis.needs[i].alone == value for i, value in changed.items())
    proof = "no design needs less of any" if least else "whether less is enough is open"
    return f"Enough together: {enough}, by the design {design}; {proof}."


def _need_text(need: Need, diagnosis: Diagnosis) -> str:
    if need.status is Status.INFEASIBLE:
        # The other budgets conflict without it.
        named = need.alone is not None or need.budget in diagnosis.conflict
        return "not enough alone" if named else "not part of the conflict"
    return {Status.OPTIMAL: "proved least", Status.FEASIBLE: "suffices; less may do", Status.UNKNOWN: "open: the search was ended"}[
        need.status
    ]
