"""Black boxes: remembered, aware of their noise, searched by heuristics, and as tables by exact solvers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, NotSeparable, SearchSpace
from hardware_models import BlackBox, Latency
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Exhaustive, GeneticAlgorithm, Limits, Status, solve
from tests.hardware_models.test_latency import TABLE

SPACE = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 4))


class Device:
    """A device that takes the toy table's latency, with noise, and counts how often it was asked."""

    def __init__(self, noise: float = 0.0) -> None:
        self.calls: Counter[Architecture] = Counter()
        self._draw = np.random.default_rng(5)
        self._noise = noise

    def __call__(self, design: Architecture) -> float:
        self.calls[design] += 1
        return float(TABLE.predict(design) * np.exp(self._noise * self._draw.normal()))

    def identity_record(self) -> float:
        return self._noise


class Connection:
    """A device of which nothing tells what it is."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, design: Architecture) -> float:
        self.calls += 1
        return 1.0 + self.calls


def test_each_design_is_measured_once() -> None:
    device = Device(noise=0.1)
    box = BlackBox("board", "ms", device, repetitions=5)
    design = next(iter(SPACE))
    assert box(design) == box(design)
    assert box.at_confidence(0.6)(design) == box.at_confidence(0.6)(design)  # with the calls that the box has made
    assert device.calls[design] == 5


def test_a_file_remembers_from_one_run_to_the_next(tmp_path: Path) -> None:
    first, second = Device(noise=0.1), Device(noise=0.1)
    designs = list(SPACE)[:3]
    values = [BlackBox("board", "ms", first, file=tmp_path / "board.jsonl")(design) for design in designs]
    again = BlackBox("board", "ms", second, file=tmp_path / "board.jsonl")
    assert [again(design) for design in designs] == values
    assert not second.calls


def test_values_of_another_function_are_not_taken_from_the_file(tmp_path: Path) -> None:
    file, design = tmp_path / "board.jsonl", next(iter(SPACE))
    values = [BlackBox("cost", "1", one, 1, file)(design) for one in (lambda a: 1.0, lambda a: 2.0)]
    assert values == [1.0, 2.0]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["identity"] for row in rows}) == 2
    file.write_text("\n".join(json.dumps({key: row[key] for key in ("design", "values")}) for row in rows) + "\n")
    assert BlackBox("cost", "1", lambda a: 5.0, 1, file)(design) == 5.0  # rows that do not say whose they are
    file.write_text(json.dumps({**rows[0], "identity": "a board", "values": [-1]}) + "\n")
    with pytest.raises(ValueError, match=r"row 1 .*board\.jsonl.* cost .*-1"):
        BlackBox("cost", "1", lambda a: 5.0, 1, file, identity="a board")(design)


def test_a_function_without_identity_is_called_in_every_run_unless_it_is_given_one(tmp_path: Path) -> None:
    file, design = tmp_path / "board.jsonl", next(iter(SPACE))
    for _ in range(2):
        box = BlackBox("board", "ms", connection := Connection(), 1, file)
        with pytest.warns(UserWarning, match=r"board is called again in every run, .*Connection is not a dataclass"):
            assert box(design) == box(design) == 2.0
        assert connection.calls == 1
    for calls in (1, 0):
        box = BlackBox("board", "ms", connection := Connection(), 1, file, identity="board 7")
        assert box(design) == 2.0
        assert connection.calls == calls


def test_confidence_covers_the_noise() -> None:
    device = Device(noise=0.05)
    box = BlackBox("board", "ms", device, repetitions=4)
    designs = list(SPACE)
    kept = np.mean([device(design) <= box.at_confidence(0.9)(design) for design in designs for _ in range(20)])
    assert 0.85 < kept < 0.96
    assert all(box.at_confidence(0.9)(design) > box(design) for design in designs)


def test_budgets_with_confidence_hold_for_heuristics() -> None:
    box = BlackBox("board", "ms", Device(noise=0.02))
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(box, 14, confidence=0.9),))
    for solver in (EvolutionaryAlgorithm(iterations=300), GeneticAlgorithm()):
        solution = solve(problem, solver, Limits(evaluations=300))
        assert solution.status is Status.FEASIBLE
        assert solution.usage[0].value <= 14
    with pytest.raises(NotSeparable, match="board is a black box"):
        solve(problem, DynamicProgramming())


def test_a_table_lets_exact_solvers_search_it() -> None:
    box = BlackBox("board", "ms", Device(), repetitions=1)
    table = box.table(SPACE, designs=60)
    assert table.error is not None
    assert table.error.within_10 == 1
    assert (table.unit, Latency(table).name) == ("ms", "cost@board:measured")
    exact = solve(DesignProblem(SPACE, EffectiveEntropy(), (Budget(Latency(table), 14),)), DynamicProgramming())
    truth = solve(DesignProblem(SPACE, EffectiveEntropy(), (Budget(box, 14),)), Exhaustive())
    assert exact.architecture == truth.architecture


def test_a_table_is_the_same_with_the_same_seed() -> None:
    tables = [BlackBox("board", "ms", Device(noise=0.01)).table(SPACE, designs=40, seed=3) for _ in range(2)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: BlackBox("board", "ms", lambda design: 0.0)(next(iter(SPACE))),
            r"board of the design .* is 0\.0; expected a finite",
        ),
        (
            lambda: BlackBox("board", "ms", lambda design: float("nan"))(next(iter(SPACE))),
            "is nan; expected a finite number above 0 ms",
        ),
        (lambda: BlackBox("board", "ms", Device(), repetitions=0), "repetitions is 0"),
        (lambda: BlackBox("board", "ms", Device(), repetitions=1, confidence=0.9), "says nothing of its noise"),
        (lambda: BlackBox("board", "ms", Device(), confidence=1.0), "the confidence is 1.0"),
        (
            lambda: BlackBox("board", "ms", Device()).table(SPACE, designs=10**6),
            "the space has 216 designs; expected at least 1000000",
        ),
    ],
)
def test_mistakes_are_sentences(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
