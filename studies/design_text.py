"""What `python -m studies.design` says, in words and tables; what it writes is `studies.design_file`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from formulation import Agreement, DesignProblem
from solvers import Count, Diagnosis, Need, Price, Solution, Solver, Status
from studies.compare_solvers import NEAR
from studies.problems import budget_text, number_text, quantity_text
from studies.report import text_table


def decisions_of(problem: DesignProblem) -> int:
    """Number of decisions in a design: width, FFN width and depth of each block."""
    return 3 * problem.space.blocks


def short(value: float, digits: int = 4) -> str:
    """A number for people, rounded: 60.13 G, 407.3 M."""
    return number_text(float(f"{value:.{digits}g}"))


def signed(value: float, digits: int = 4) -> str:
    """The same with its sign: +0.13 G, −2 G."""
    return "0" if not value else ("+" if value > 0 else "−") + short(abs(value), digits)


def per_cent(value: float, base: float) -> str:
    """Change from `base` to `value` in per cent, with its sign; empty where the base is 0, and "same" where they agree."""
    if not base:
        return ""
    change = 100 * (value - base) / abs(base)
    if abs(change) < 1e-7:
        return "same"
    return f"{change:+.2g} %".replace("-", "−") if abs(change) < 1 else f"{change:+.1f} %".replace("-", "−")


def proof_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The status of a solution in words, with its bound, gap and time."""
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
    return (
        f"Not proved optimal: no design exceeds {solution.bound:,.2f} {unit}, so at most {100 * solution.gap:.2g} % are missing "
        f"({seconds}: {solution.message})."
    )


def design_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The design as a table, its objective and its proof."""
    assert solution.architecture is not None
    blocks = [
        [str(i), str(b.width), str(b.ffn_width), f"{b.ffn_ratio:g}", str(b.depth), str(b.heads)]
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
            short(price.present.upper, 6),
            f"{short(price.slack)} ({100 * price.slack / price.budget.upper if price.budget.upper else 0:.2g} %)",
            binding[price.binds],
        ]
        for price in prices
    ]
    parts = [text_table(["budget", "needed", "slack", ""], rows, {0, 3})]
    for price in prices:
        parts.append(_steps_text(problem, price))
    return "\n" + "\n\n".join(parts)


def _steps_text(problem: DesignProblem, price: Price) -> str:
    quantity, objective = price.budget.quantity, problem.maximize
    rows = []
    for point in price.breakpoints:
        here = point is price.present
        rows.append(
            [
                short(point.upper, 6),
                "needed now" if here else signed(point.upper - price.budget.upper),
                f"{point.objective:,.2f}",
                "" if here else per_cent(point.objective, price.present.objective),
                str(point.architecture),
                "" if point.proved else "not proved",
            ]
        )
    header = [f"{quantity_text(quantity)} ≥", "to the budget", objective.name, "change", "design", ""]
    text = f"Steps of {budget_text(price.budget)}, the other budgets kept\n" + text_table(header, rows, {4, 5})
    words = []
    if price.above:
        first = price.above[0]
        gain = per_cent(first.objective, price.present.objective)
        buys = "buys" if first.proved else "buys at least"
        words.append(f"{signed(first.upper - price.budget.upper)} {quantity.unit} {buys} {gain} {objective.name}")
    if price.below:
        loss = per_cent(price.below[0].objective, price.present.objective)
        costs = "costs" if price.below[0].proved else "costs at most"
        words.append(f"less than {short(price.present.upper, 6)} {quantity.unit} {costs} {loss.removeprefix('−')}")
    if price.binds is False:
        words.append("more of it buys nothing")
    elif math.isinf(price.explored) and price.above:
        words.append("more than the highest step buys nothing")
    elif not price.above and price.explored > price.budget.upper:
        words.append(f"nothing more up to {short(price.explored, 6)} {quantity.unit}")
    if price.floor:
        words.append(f"no design needs less than {short(price.breakpoints[0].upper, 6)} {quantity.unit}")
    return text + ("\n" + "; ".join(words) + "." if words else "")


def alternatives_text(problem: DesignProblem, others: Sequence[Solution], differing: int) -> str:
    """The best design and its alternatives as a table."""
    best = others[0]
    assert best.architecture is not None
    assert best.objective is not None
    rows = []
    for number, other in enumerate(others):
        if other.architecture is None or other.objective is None:
            continue
        apart = decisions_of(problem) - Agreement(best.architecture)(other.architecture)
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
    header = ["", problem.maximize.name, "change", "apart", *costs, "design", ""]
    text = (
        f"\nAlternatives, each the best that differs from all above in {differing} or more of {decisions_of(problem)} decisions\n"
    )
    text += text_table(header, rows, {0, len(header) - 2, len(header) - 1})
    if others[-1].status is Status.INFEASIBLE:
        text += "\nNo further design differs that much (proved)."
    elif others[-1].architecture is None:
        text += "\nThe time limit was reached before a further one was found."
    return text


def near_text(near: Count, solution: Solution) -> str:
    """How many designs are nearly as good."""
    designs = "1 design lies" if near.number == 1 else f"{near.number:,} designs lie"
    what = "the optimum" if solution.status is Status.OPTIMAL else "this design, or above it"
    exact = "" if near.exact else " at least; the time limit ended the count"
    return f"\n{designs} within {100 * NEAR:g} % of {what}{exact}."


def diagnosis_text(problem: DesignProblem, diagnosis: Diagnosis) -> str:
    """Which budgets conflict, and what each alone would have to be."""
    if diagnosis.status is Status.FEASIBLE:
        return f"Looking for the reason met a design that keeps all budgets: {diagnosis.architecture}. Give more --seconds."
    names = " and ".join(map(budget_text, diagnosis.conflict))
    if diagnosis.status is Status.UNKNOWN:
        text = "Whether some design keeps the budgets is open; give more --seconds."
    elif len(diagnosis.conflict) == 1:
        text = f"No design keeps {names}, whatever the other budgets (proved)."
    else:
        text = f"No design keeps {names} together (proved). "
        text += "Any fewer budgets can be kept." if diagnosis.smallest else "Whether fewer already conflict is open."
    rows = []
    for need in diagnosis.needs:
        found = need.least is not None and need.objective is not None
        rows.append(
            [
                budget_text(need.budget),
                f"{number_text(need.least)} ({signed(need.least - need.budget.upper)})" if need.least is not None else "",
                _need_text(need),
                f"{need.objective:,.2f}" if found else "",
                str(need.architecture) if found else "",
            ]
        )
    header = ["budget", "would have to be", "", f"best {problem.maximize.name} then", "design"]
    return f"{text}\n\nIf one budget alone could change\n{text_table(header, rows, {0, 2, 4})}"


def _need_text(need: Need) -> str:
    return {
        Status.OPTIMAL: "proved least",
        Status.FEASIBLE: "suffices; less may do",
        Status.INFEASIBLE: "no value of it helps",
        Status.UNKNOWN: "open: time limit",
    }[need.status]
