"""A short run of the questions beside the best design against brute force, and that the checks see what is false."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from formulation import DesignProblem
from solvers import Count, Diagnosis, Limits, Price, Solution, Status
from tests import fuzz, fuzz_questions
from tests.fuzz_questions import Asked

LIMITS = Limits(seconds=60.0, gap=0.0)


@pytest.mark.parametrize("seed", [5, 8, 10])
def test_no_answer_contradicts_brute_force(seed: int) -> None:
    assert fuzz_questions.check(seed, list(fuzz_questions.QUESTIONS), 60.0, Counter()) == []


def _asked() -> Asked:
    """A problem with several feasible designs and a budget that rules some out."""
    for seed in range(200):
        asked = Asked(fuzz.random_problem(seed)[0], LIMITS, seed)
        if (
            asked.certain.sum() > 9
            and asked.used
            and not asked.certain.all()
            and all(isinstance(quantity, fuzz.Terms) for quantity in asked.problem.quantities)
        ):
            return asked
    raise AssertionError("no such problem among the first")


def test_false_answers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _asked()
    right = {name: getattr(fuzz_questions, name) for name in ("alternatives", "count_near", "price_of_budgets")}

    def without_the_second(*given: object, **options: object) -> tuple[Solution, ...]:
        first, _, *rest = right["alternatives"](*given, **options)
        return (first, *rest)

    def one_more(problem: DesignProblem, optimum: float, within: float, limits: Limits) -> Count:
        count = right["count_near"](problem, optimum, within, limits)
        return replace(count, number=count.number + problem.space.size)

    def unbound(*given: object, **options: object) -> tuple[Price, ...]:
        prices = right["price_of_budgets"](*given, **options)
        return tuple(replace(price, binds=not price.binds, floor=True, below=()) for price in prices)

    def impossible(problem: DesignProblem, limits: Limits) -> Diagnosis:
        return Diagnosis(Status.INFEASIBLE, problem.subject_to)

    asked.seed = 0  # designs that differ in one decision at least
    for name, false, question in (
        ("alternatives", without_the_second, fuzz_questions.ask_for_alternatives),
        ("count_near", one_more, fuzz_questions.ask_for_a_count),
        ("price_of_budgets", unbound, fuzz_questions.ask_for_prices),
        ("explain_infeasibility", impossible, fuzz_questions.ask_for_the_reason),
    ):
        assert question(asked) == []
        monkeypatch.setattr(fuzz_questions, name, false)
        assert question(asked), name
