"""What was found out about a problem, in words and tables: what `Findings` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR

import numpy as np

from formulation import Architecture, Budget, DesignProblem, SpaceUnion
from formulation.command.words import change_text, counted, number_text, per_cent, short, text_table, value_text, with_unit
from formulation.deployability import Deployability
from formulation.derived import NegativeSum, negative
from formulation.problem import budget_text
from formulation.quantity import column_texts, quantity_text
from formulation.unseen import unseen
from solvers.arrangements import order_is_free
from solvers.base import ROUNDING, Part, Solution, Solver, Status, broken_budgets, relative_gap
from solvers.exact.dynamic_programming import Count
from solvers.questions.alternatives import NEAR, apart
from solvers.questions.diagnosis import Diagnosis, Need
from solvers.questions.pareto import Front
from solvers.questions.price import Price


def _change(budget: Budget, bound: float) -> str:
    """How a budget with another bound differs from it."""
    return change_text(bound - budget.bound, down=budget.upper is None)


def _gain(problem: DesignProblem, value: float, base: float) -> str:
    """How an objective differs from another: in per cent, or in its unit where the other is 0."""
    if base or value == base:
        return per_cent(value, base) or "same"
    return with_unit(f"{'+' if value > base else '−'}{value_text(abs(value - base))}", problem.goal.unit)


def _share_text(slack: float, bound: float) -> str:
    """A slack as a share of its budget's bound: 1.3 %, or 3,996 %."""
    share = 100 * slack / abs(bound) if bound else 0.0
    return f"{share:.2g} %" if share < 100 else f"{share:,.0f} %"


def proof_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The status of a solution in words, with its bound, gap and time, and what its budgets rest on where that is doubtful."""
    known = dict.fromkeys(budget.quantity.doubt for budget in problem.subject_to)
    doubts = [f"What is proved holds for {doubt}." for doubt in known if doubt]
    design = solution.architecture
    outside = {quantity.name: quantity.extrapolates(design) for quantity in problem.quantities if design is not None}
    beyond = [f"Extrapolated: {name} was not validated on {what}." for name, what in outside.items() if what]
    return "\n".join([_status_text(problem, solution, solver), *doubts, *beyond])


def _status_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    # A message that follows names what was chosen, and why.
    proved = solution.status in (Status.OPTIMAL, Status.INFEASIBLE)
    chosen = f": {' and '.join(solution.chosen)}" if solution.chosen and proved else ""
    seconds = f"{solution.seconds:.2f} s, {solver.name}{chosen}"
    beats = "has less than" if problem.least else "exceeds"
    if solution.status is Status.OPTIMAL:
        gap = f"gap {solution.gap:.1g}; {seconds}"
        return f"Proved optimal: no design within the budgets {beats} {_goal_text(problem, solution.bound)} ({gap})."
    if solution.status is Status.INFEASIBLE:
        return f"Proved: no design meets the budgets ({seconds})."
    if solution.status is Status.UNKNOWN:
        return f"No design found and nothing proved ({seconds}: {solution.message})."
    if solution.bound is None or solution.gap is None:
        return f"Not proved optimal, and no bound ({seconds}: {solution.message})."
    missing = f"{100 * solution.gap:.2g}" if solution.gap < 1 else f"{100 * solution.gap:,.0f}"
    lacking = f"at most {missing} % of it could be saved" if problem.least else f"at most {missing} % are missing"
    if solution.gap > _SAID:
        assert solution.objective is not None
        missing = with_unit(f"{abs(solution.bound - solution.objective):.2g}", problem.goal.unit)
        lacking = f"at most {missing} could be saved" if problem.least else f"at most {missing} are missing"
    bound = _goal_text(problem, solution.bound)
    return f"Not proved optimal: no design {beats} {bound}, so {lacking} ({seconds}: {solution.message})."


_SAID = 100.0
"""Relative gap up to which it is said as a share of the objective, which may be next to nothing."""


def design_words(problem: DesignProblem, design: Architecture, beside: Architecture | None = None) -> str:
    """A design in a line, with what tells its part of a union of spaces from the others.

    Args:
        problem: whose space the design is of.
        design: to be said.
        beside: a design that stands above it.
    """
    return problem.space.words(design, beside)


def parts_text(problem: DesignProblem, solution: Solution) -> str:
    """What is known of each space of a union as a table; empty for a single space."""
    rows = [
        [
            part.label,
            "" if part.objective is None else value_text(part.objective),
            "" if part.bound is None else value_text(part.bound),
            _part_remark(problem, solution, part),
        ]
        for part in solution.parts
    ]
    bound = f"none {'has less than' if problem.least else 'exceeds'}"
    return text_table(["space", f"{problem.goal.name} found", bound, ""], rows, {0, 3}) if rows else ""


def _part_remark(problem: DesignProblem, solution: Solution, part: Part) -> str:
    if part.infeasible:
        return "no design meets the budgets (proved)"
    if solution.architecture is not None and solution.architecture in part.space:
        return "the design"
    if part.bound is None or solution.objective is None or solution.bound is None:
        return "open"
    sign = -1 if problem.least else 1
    closed = relative_gap(sign * solution.objective, sign * part.bound) <= ROUNDING
    return "nothing better (proved)" if closed or solution.status is Status.OPTIMAL else "open"


def unseen_text(problem: DesignProblem) -> str:
    """What the objective does not see of the decisions that the space leaves open; empty if it sees them all."""
    names = unseen(problem.goal, problem.space)
    blind = [set(unseen(budget.quantity, problem.space)) for budget in problem.subject_to]
    idle = [name for name in names if all(name in own for own in blind)]
    priced = [name for name in names if name not in idle]
    goal = problem.goal.name
    sentences = []
    if priced:
        said = f"{goal} does not see {_listed(priced)}"
        what = (
            "it is chosen for what it leaves of the budgets, not for what it is"
            if len(priced) == 1
            else ("they are chosen for what they leave of the budgets, not for what they are")
        )
        sentences.append(f"{said[0].upper()}{said[1:]}: {what} worth.")
    if idle:
        sees = f"Neither {goal} nor a budget sees" if problem.subject_to else f"{goal[0].upper()}{goal[1:]} does not see"
        sentences.append(f"{sees} {_listed(idle)}: another choice is as good, and which one is shown is chance.")
    return " ".join(sentences)


def _listed(names: Sequence[str]) -> str:
    """the vocabulary, the kv heads and the bits."""
    said = [f"the {_DECISIONS.get(name, name.replace('_', ' '))}" for name in names]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))


_DECISIONS = {
    "shared": "sharing of weights",
    "gated": "gate",
    "tied": "tying of the head",
    "kv_heads": "key/value heads",
    "ffn_width": "FFN width",
    "ffn_ratio": "FFN ratio",
    "bits": "bits of a weight",
}
"""Names of decisions whose own name is no noun."""


def deployment_text(problem: DesignProblem, solution: Solution, rule: Deployability, without: Solution) -> str:
    """What it costs in objective that a design can be deployed: the optimum with the rule compared with that without."""
    intro = f"Deployable with {rule.name}: {rule.reason}."
    if without.objective is None:
        none = "there is no design either (proved)" if without.status is Status.INFEASIBLE else "no design was found either"
        return f"{intro} Without it {none}."
    best = f"{problem.goal.name} {_goal_text(problem, without.objective)}"
    proved = without.status is Status.OPTIMAL
    if solution.objective is None:
        return f"{intro} Without it: {best}{' (proved)' if proved else ', not proved optimal'}."
    loss = abs(solution.objective - without.objective)
    both = "both proved" if proved and solution.status is Status.OPTIMAL else "not both proved optimal"
    gain = _gain(problem, solution.objective, without.objective)
    if gain == "same":
        return f"{intro} It costs nothing: without it the best {best} is the same, {both}."
    sign = -1 if problem.least else 1
    change = f"{_goal_text(problem, loss)} ({gain})" if without.objective else _goal_text(problem, loss)
    verb = "costs" if sign * (without.objective - solution.objective) > 0 else "gains, by the layers that it stores apart,"
    return f"{intro} It {verb} {change}: {_goal_text(problem, solution.objective)}, without it {best}, {both}."


def _goal_text(problem: DesignProblem, value: float | None) -> str:
    assert value is not None
    return with_unit(value_text(value), problem.goal.unit)


def shown_design(problem: DesignProblem, design: Architecture) -> str:
    """A design as a table."""
    return text_table(*problem.space.part_of(design).design_table(design, problem.quantities))


def solution_text(problem: DesignProblem, solution: Solution, solver: Solver) -> str:
    """The design as a table, its objective and its proof."""
    assert solution.architecture is not None
    lines = [
        shown_design(problem, solution.architecture),
        f"\n{'least ' if problem.least else ''}{problem.goal.name} {_goal_text(problem, solution.objective)}",
    ]
    reported = problem.evaluate(solution.architecture).report
    if isinstance(problem.space, SpaceUnion):
        lines.append(problem.space.label_of(solution.architecture))
    lines += [
        f"{quantity_text(quantity)} {with_unit(number_text(usage.value), usage.unit)}"
        for quantity, usage in zip(problem.report, reported, strict=True)
    ]
    further = (parts_text(problem, solution), unseen_text(problem))
    return "\n".join([*lines, proof_text(problem, solution, solver), *(f"\n{text}" for text in further if text)])


def price_text(problem: DesignProblem, prices: Sequence[Price]) -> str:
    """What each budget uses, whether it binds, and the steps around it."""
    if not prices:
        return ""
    binding = {True: "binds", False: "does not bind", None: "not settled"}
    rows = [
        [
            budget_text(price.budget),
            number_text(price.present.bound),
            f"{short(price.slack, 4, ROUND_FLOOR)} ({_share_text(price.slack, price.budget.bound)})",
            binding[price.binds] + ("" if price.present.proved else "; whether a tighter one suffices is open"),
        ]
        for price in prices
    ]
    needed = "needed" if all(price.budget.upper is not None for price in prices) else "needed or reached"
    parts = [text_table(["budget", needed, "slack", ""], rows, {0, 3})]
    for price in prices:
        parts.append(_steps_text(problem, price))
    open_steps = "steps may be missing, and what is not proved may not be best"
    if any(price.interrupted for price in prices):
        parts.append(f"Ctrl-C ended the prices: {open_steps}.")
    elif any(price.limited for price in prices):
        parts.append(f"The time limit ended some searches for the prices: {open_steps}; give more --seconds.")
    elif any(price.loose for price in prices):
        parts.append(
            "Some searches for the prices ended by themselves without a proof, for the solver's tolerances or its memory: "
            f"{open_steps}. Longer ones would find no more; another --solver may."
        )
    return "\n" + "\n\n".join(parts)


def _steps_text(problem: DesignProblem, price: Price) -> str:
    budget, quantity, objective = price.budget, price.budget.quantity, problem.goal
    from_above = budget.upper is not None
    rows = []
    for point in price.breakpoints:
        here = point is price.present
        rows.append(
            [
                number_text(point.bound),
                ("needed now" if from_above else "reached now") if here else _change(budget, point.bound),
                value_text(point.objective),
                "" if here else _gain(problem, point.objective, price.present.objective),
                design_words(problem, point.architecture, None if here else price.present.architecture),
                "" if point.proved else "not proved",
            ]
        )
    header = [
        f"{column_texts([quantity])[0]} budget {'from' if from_above else 'up to'}",
        "to the budget",
        objective.name,
        "change",
        problem.space.design_head,
        "",
    ]
    others = len(problem.subject_to) > 1
    text = f"Steps of {budget_text(budget)}{', the other budgets met' if others else ''}\n" + text_table(header, rows, {4, 5})
    words = []
    if price.above:
        first = price.above[0]
        gain = _gain(problem, first.objective, price.present.objective)
        buys = "buys" if first.proved else "buys at least"
        words.append(f"{with_unit(_change(budget, first.bound), quantity.unit)} {buys} {gain} {objective.name}")
    if price.below:
        loss = _gain(problem, price.below[0].objective, price.present.objective)
        if not price.present.objective:
            loss += f" {objective.name}"
        costs = "costs" if price.below[0].proved else "costs at most"
        less = "less" if from_above else "more"
        words.append(f"{less} than {with_unit(number_text(price.present.bound), quantity.unit)} {costs} {loss.lstrip('−+')}")
    if price.binds is False:
        words.append(f"{'more' if from_above else 'less'} of it buys nothing")
    elif math.isinf(price.explored) and price.above:
        words.append(f"{'more than the highest' if from_above else 'less than the lowest'} step buys nothing")
    elif price.explored != (price.above[-1].bound if price.above else budget.bound):
        more, way, rounding = ("more", "up", ROUND_FLOOR) if from_above else ("less", "down", ROUND_CEILING)
        end = with_unit(short(price.explored, 6, rounding), quantity.unit)
        words.append(f"no further step {way} to {end}, where the search ended" if price.above else f"nothing {more} {way} to {end}")
    if price.floor:
        side, tightest = "below" if from_above else "above", with_unit(number_text(price.breakpoints[0].bound), quantity.unit)
        words.append(f"{side} {tightest} {'no design meets the other budgets' if others else 'there is no design'}")
    return text + ("\n" + "; ".join(words) + "." if words else "")


def alternatives_text(problem: DesignProblem, others: Sequence[Solution], differing: int, wanted: int) -> str:
    """The best design and its alternatives as a table, of which `wanted` were asked for."""
    best = others[0]
    assert best.architecture is not None
    assert best.objective is not None
    limited = column_texts([budget.quantity for budget in problem.subject_to])
    names = list(dict.fromkeys(limited))  # a range is two budgets
    rows = []
    for number, other in enumerate(others):
        if other.architecture is None or other.objective is None:
            continue
        costs = {name: usage.value for name, usage in zip(limited, other.usage, strict=True)}
        rows.append(
            [
                str(number) if number else "best",
                value_text(other.objective),
                _gain(problem, other.objective, best.objective) if number else "",
                f"{apart(problem, best.architecture, other.architecture)}" if number else "",
                *(short(costs[name]) for name in names),
                design_words(problem, other.architecture, best.architecture if number else None),
                "" if other.status is Status.OPTIMAL else "not proved",
            ]
        )
    header = ["", problem.goal.name, "change", "apart", *names, problem.space.design_head, ""]
    proved = all(other.status in (Status.OPTIMAL, Status.INFEASIBLE) for other in others)
    each = "each the best that differs" if proved else "each proved the best where no other word stands, and differing"
    reordered = ", whatever the order of equally wide neighbouring blocks" if order_is_free(problem) else ""
    decisions = counted(problem.space.decisions, problem.space.decision)
    text = f"\nAlternatives, {each} from all above in at least {differing} of {decisions}{reordered}\n"
    text += text_table(header, rows, {0, len(header) - 2, len(header) - 1})
    if others[-1].status is Status.INFEASIBLE:
        text += "\nNo further design differs that much (proved)."
    elif others[-1].architecture is None or len(others) < wanted + 1:
        text += "\nThe search was ended before a further one was found; give more --seconds."
    return text


def front_table(front: Front) -> str:
    """The points of a front by increasing costs, thinned evenly where there are many."""
    problem = front.problem
    numbers = np.unique(np.linspace(0, len(front.points) - 1, min(_SHOWN, len(front.points))).round().astype(int))
    turned = isinstance(problem.goal, NegativeSum)
    goal = negative(problem.goal) if turned else problem.goal
    header = [goal.name, *column_texts(problem.minimize), problem.space.design_head]
    lines, before = [], None
    for point in (front.points[number] for number in numbers):
        words = design_words(problem, point.architecture, before)
        lines.append(
            [value_text(0.0 - point.objective if turned else point.objective), *(short(cost, 5) for cost in point.costs), words]
        )
        before = point.architecture
    text = text_table(header, lines, {len(header) - 1})
    return text if len(numbers) == len(front.points) else f"{text}\n({len(numbers)} of {len(front.points):,} points)"


_SHOWN = 24
"""Points of a front that the table shows."""


def near_text(near: Count, solution: Solution) -> str:
    """How many designs are nearly as good; this one is one of them."""
    number = max(near.number, 1)
    designs = f"{counted(number, 'design')} {'lies' if number == 1 else 'lie'} within {100 * NEAR:g} %"
    what = "the optimum" if solution.status is Status.OPTIMAL else "this design, or above it"
    if not near.exact:
        return f"\nAt least {designs} of {what}; the count was ended, give more --seconds."
    if near.distinct is None:
        return f"\n{designs} of {what}, with every order of equally wide neighbouring blocks counted."
    distinct = max(near.distinct, 1)
    unordered = "" if distinct == number else f", {distinct:,} if the order of equally wide neighbouring blocks is ignored"
    return f"\n{designs} of {what}{unordered}."


def diagnosis_text(problem: DesignProblem, diagnosis: Diagnosis) -> str:
    """Which budgets conflict, what each alone would have to be, and where that is not enough, what would do for all together."""
    names = " and ".join(map(budget_text, diagnosis.conflict))
    alone = [need for need in diagnosis.needs if need.alone is not None]
    if diagnosis.status is Status.UNKNOWN:
        text = "Whether some design meets the budgets is open; give more --seconds."
    elif len(alone) > 1:
        text = "No design meets any one of these, whatever the other budgets (proved):"
        for need in alone:
            text += f"\n  {budget_text(need.budget)}; every design {_reach_text(need)}"
    elif len(diagnosis.conflict) == 1:
        others = ", whatever the other budgets" if len(problem.subject_to) > 1 else ""
        text = f"No design meets {names}{others} (proved)."
        if alone and alone[0].bound is None:
            text += f" Every design {_reach_text(alone[0])}."
    else:
        text = f"No design meets {names} together (proved). "
        text += (
            "Any fewer budgets can be met."
            if diagnosis.smallest
            else "Whether fewer conflict already is open; give more --seconds."
        )
    rows = []
    for need in diagnosis.needs:
        rows.append(
            [
                budget_text(need.budget),
                f"{number_text(need.bound)} ({_change(need.budget, need.bound)})" if need.bound is not None else "",
                _need_text(need, diagnosis),
                "" if need.bound is None or need.objective is None else value_text(need.objective),
                "" if need.bound is None or need.architecture is None else design_words(problem, need.architecture),
            ]
        )
    header = ["budget", "would have to be", "", f"{problem.goal.name} then", problem.space.design_head]
    text += f"\n\nIf one budget alone could change\n{text_table(header, rows, {0, 2, 4})}"
    if diagnosis.joint is not None:
        text += f"\n\n{_joint_text(problem, diagnosis, diagnosis.joint)}"
    return text


def _reach_text(need: Need) -> str:
    """needs at least 3.2 M; or, of a budget from below: has at most 60 M."""
    verb = "needs at least" if need.budget.upper is not None else "has at most"
    return f"{verb} {number_text(need.alone or 0.0)}"


def _joint_text(problem: DesignProblem, diagnosis: Diagnosis, design: Architecture) -> str:
    """Values of all budgets together that are enough, by a design that shows it."""
    changed = {i: budget.value(design) for i, budget in enumerate(problem.subject_to) if budget in broken_budgets(problem, design)}
    enough = " and ".join(budget_text(problem.subject_to[i].at(value)) for i, value in changed.items())
    least = all(diagnosis.needs[i].alone == value for i, value in changed.items())
    proof = "no design comes nearer to any" if least else "whether less of a change is enough is open"
    return f"Enough together: {enough}, by the design {design_words(problem, design)}; {proof}."


def _need_text(need: Need, diagnosis: Diagnosis) -> str:
    if need.status is Status.INFEASIBLE:
        # The other budgets conflict without it.
        named = need.alone is not None or need.budget in diagnosis.conflict
        return "not enough alone" if named else "not part of the conflict"
    return {
        Status.OPTIMAL: "proved least" if need.budget.upper is not None else "proved greatest",
        Status.FEASIBLE: "suffices; less may do" if need.budget.upper is not None else "suffices; more may do",
        Status.UNKNOWN: "open: the search was ended",
    }[need.status]
