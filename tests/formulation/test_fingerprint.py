"""Identity is content: what says the same has one fingerprint in every process, what says something else has another."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import (
    Budget,
    DesignProblem,
    EffectiveEntropy,
    EntropyTable,
    Measured,
    NoIdentity,
    SearchSpace,
    Separable,
    fingerprint,
    paper_space,
)
from formulation.problem_file import problem_from_dict, problem_to_dict
from hardware_models import BlackBox, Flops, Latency, Memory, Params, WeightMemory, read_device
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import DynamicProgramming, Exhaustive, Highs, Limits, solve

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace.uniform(1, (256, 512), (1, 2), (1, 2))

COSTS = """
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache, partial

import numpy as np

from scipy.special import expit

import my_helper
from formulation import LayerSum, Measured, Separable
from my_helper import halved

FACTOR = 2.0
PRICES = {"a": 1.0, "b": 2.0, "c": 3.0}


class Mode(Enum):
    FAST = 1
    SLOW = 2


@dataclass(frozen=True)
class Energy(Separable):
    factor: float = 1.0
    modes: frozenset = frozenset(Mode)
    words: frozenset = frozenset({"one", "two", "three", "four"})
    note: str = field(default="", compare=False)
    name = "energy"
    unit = "J"

    def block(self, block, setting):
        return self.factor * halved(block.depth) * block.width


class Plain(Separable):
    name = "plain"
    unit = "1"

    def block(self, block, setting):
        return block.depth


def cost(design):
    return FACTOR * PRICES["a"] * my_helper.halved(design.depths[0])


def even(number):
    return number == 0 or odd(number - 1)


def odd(number):
    return number != 0 and even(number - 1)


def cyclic(design):
    return float(even(design.depths[0]))


def scaled(factor):
    return lambda design: factor * design.depths[0]


def made(factor):
    @dataclass(frozen=True)
    class Own(Separable):
        name = "own"
        unit = "1"

        def block(self, block, setting):
            return factor * block.depth

    return Own()


def itself(count):
    def call(design):
        return design.depths[0] if count else call(design)

    return call


@lru_cache
def remembered(design):
    return design.depths[0]


one_line = (lambda design: design.depths[0], lambda design: -design.depths[0])

THINGS = {
    "energy": Energy(),
    "energy of another factor": Energy(2.0),
    "energy of an int": Energy(1),
    "energy of fewer words": Energy(words=frozenset({"one"})),
    "energy of one mode": Energy(modes=frozenset({Mode.FAST})),
    "energy of the other mode": Energy(modes=frozenset({Mode.SLOW})),
    "plain": Plain(),
    "cost": Measured("cost", "1", cost),
    "cost in another unit": Measured("cost", "J", cost),
    "cyclic": Measured("cost", "1", cyclic),
    "scaled": Measured("cost", "1", scaled(2)),
    "scaled otherwise": Measured("cost", "1", scaled(3)),
    "scaled by an array": Measured("cost", "1", scaled(np.arange(3.0))),
    "scaled by another array": Measured("cost", "1", scaled(np.arange(3.0)[::-1])),
    "scaled by an array of another shape": Measured("cost", "1", scaled(np.arange(3.0)[:, None])),
    "scaled by an array of another type": Measured("cost", "1", scaled(np.arange(3.0, dtype=np.float32))),
    "made": made(1),
    "made otherwise": made(2),
    "itself": Measured("cost", "1", itself(1)),
    "first of a line": Measured("cost", "1", one_line[0]),
    "second of a line": Measured("cost", "1", one_line[1]),
    "remembered": Measured("cost", "1", remembered),
    "partial": Measured("cost", "1", partial(pow, 2)),
    "another partial": Measured("cost", "1", partial(pow, 3)),
    "a function of NumPy": Measured("cost", "1", np.log),
    "another function of NumPy": Measured("cost", "1", np.exp),
    "a function of SciPy": Measured("cost", "1", lambda design: expit(design.depths[0])),
    "layers": LayerSum("sum", "1", lambda width, ffn_width: width),
    "other layers": LayerSum("sum", "1", lambda width, ffn_width: ffn_width),
    "a method": Measured("cost", "1", Energy(3.0)),
}
"""
HELPER = "def halved(number):\n    return number / 2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_costs.py").write_text(COSTS)
    (tmp_path / "my_helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for name in ("my_costs", "my_helper"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def imported() -> ModuleType:
    forget()
    return importlib.import_module("my_costs")


def in_a_process(folder: Path, program: str, seed: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))), "PYTHONHASHSEED": seed}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_two_processes_give_one_thing_one_fingerprint_and_two_things_two(folder: Path) -> None:
    program = """
import json
from formulation import *
from hardware_models import *
from solvers import *
from my_costs import THINGS
device = Latency(read_device("amd-epyc-2cpu").table(), extrapolate=True)
whole = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Memory(), 2e8)), (Params(),), (device,))
table = EntropyTable.build(0.01, (64, 256, 512))
things = {**THINGS, "whole": whole, "table": EffectiveEntropy(table=table), "solvers": (Highs(), Scip(), GeneticAlgorithm())}
print(json.dumps({name: fingerprint(thing) for name, thing in things.items()}))
"""
    one, other = (in_a_process(folder, program, seed) for seed in ("1", "2"))
    assert one == other
    assert len(set(one.values())) == len(one)
    assert all(len(digits) == 64 for digits in one.values())
    module = imported()
    assert {name: fingerprint(thing) for name, thing in module.THINGS.items()} == {name: one[name] for name in module.THINGS}


PAIRS: dict[str, tuple[Any, Any]] = {
    "a number and its type": (1, 1.0),
    "a number and a truth value": (1, True),
    "a text and a number": ("1", 1),
    "a text and bytes": ("1", b"1"),
    "neighbouring floats": (0.1, math.nextafter(0.1, 1)),
    "zero and minus zero": (0.0, -0.0),
    "a list in a list": ([[1], 2], [1, [2]]),
    "texts cut elsewhere": (("ab", "c"), ("a", "bc")),
    "a tuple and a list": ((1, 2), [1, 2]),
    "nothing and an empty tuple": (None, ()),
    "keys and values": ({1: 2}, {2: 1}),
    "arrays of other bytes": (np.array([1.0, 2.0]), np.array([2.0, 1.0])),
    "arrays of another shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "arrays of another type": (np.zeros(2, np.int32), np.zeros(2, np.float32)),
    "an array and its list": (np.array([1, 2]), [1, 2]),
    "classes with like fields": (Flops(128), dataclasses.make_dataclass("Flops", [("seq_len", int), ("head", bool)])(128, False)),
    "bits of weights": (WeightMemory(8), WeightMemory(4)),
    "an objective with a table": (EffectiveEntropy(), EffectiveEntropy(table=EntropyTable.build(0.01, (256, 512)))),
    "tables of one value each": tuple(
        EntropyTable(0.01, (256, 512), values) for values in (np.ones((2, 2)), np.ones((2, 2)) + np.finfo(float).eps)
    ),
    "uppers": tuple(
        DesignProblem(SPACE, EffectiveEntropy(), (Budget(Params(), upper),)) for upper in (1e7, math.nextafter(1e7, 2e7))
    ),
    "budgets and report": (
        DesignProblem(SPACE, EffectiveEntropy(), (), (Params(),)),
        DesignProblem(SPACE, EffectiveEntropy(), (), (), (Params(),)),
    ),
    "spaces": tuple(DesignProblem(paper_space(vocabulary=size), EffectiveEntropy()) for size in (50257, 50258)),
    "solver options": (DynamicProgramming(), DynamicProgramming(beam=64)),
    "solvers": (Exhaustive(), Highs()),
    "limits": (Limits(seconds=1), Limits(seconds=2)),
    "two lambdas": tuple(Measured("cost", "1", one) for one in (lambda a: a.depths[0], lambda a: -a.depths[0])),
    "two constants": tuple(Measured("cost", "1", one) for one in (lambda a: 1.0, lambda a: 2.0)),
    "defaults": tuple(Measured("cost", "1", one) for one in (lambda a, b=1: b, lambda a, b=2: b)),
    "repetitions": tuple(BlackBox("board", "ms", math.sqrt, repetitions) for repetitions in (1, 3)),
    "a latency and one at a confidence": tuple(
        Latency(read_device("amd-epyc-2cpu").table(), confidence) for confidence in (None, 0.95)
    ),
    "tables of a device": tuple(
        Latency(read_device("amd-epyc-2cpu").table(name))
        for name in [table.name for table in read_device("amd-epyc-2cpu").tables[:2]]
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_different_things_differ(name: str) -> None:
    one, other = PAIRS[name]
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


SAME: dict[str, Callable[[], Any]] = {
    "a problem": lambda: DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Memory(), 2e8))),
    "a table": lambda: EffectiveEntropy(table=EntropyTable.build(0.01, (256, 512))),
    "a space written otherwise": lambda: paper_space(),
    "a device": lambda: read_device("amd-epyc-2cpu").table(),
    "a dictionary": lambda: {"a": 1, "b": 2},
}
AGAIN: dict[str, Callable[[], Any]] = {
    "a space written otherwise": lambda: SearchSpace.from_dict(paper_space().to_dict()),
    "a dictionary": lambda: {"b": 2, "a": 1},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_thing_made_twice_is_one(name: str) -> None:
    assert fingerprint(SAME[name]()) == fingerprint(AGAIN.get(name, SAME[name])())


def test_what_is_only_remembered_is_no_content(tmp_path: Path) -> None:
    def function(design: Any) -> float:
        return 1.0

    box = BlackBox("board", "ms", function)
    before = fingerprint(box)
    box(next(iter(SPACE)))
    assert fingerprint(box) == before == fingerprint(BlackBox("board", "ms", function, file=tmp_path / "rows.jsonl"))
    entropy = EffectiveEntropy()
    before = fingerprint(entropy)
    assert entropy.parts  # computed once, and kept beside the fields
    assert fingerprint(entropy) == before
    table = read_device("amd-epyc-2cpu").table()
    assert fingerprint(table) == fingerprint(dataclasses.replace(table, origin="elsewhere.json", how={}, rows=()))


def of_the_package(name: str, module: str, *fields: str, **defaults: Any) -> Any:
    """A dataclass as if it stood in a module of the package, whose classes are known by their names alone."""
    listed = [*fields, *((one, Any, dataclasses.field(default=default)) for one, default in defaults.items())]
    return dataclasses.make_dataclass(name, listed, namespace={"__module__": module}, frozen=True)


def test_a_new_field_of_the_package_changes_nothing_while_it_is_none() -> None:
    before = of_the_package("Rule", "formulation.rules", "width")
    after = of_the_package("Rule", "formulation.rules", "width", step=None)
    known = fingerprint(before(128))
    assert fingerprint(after(128)) == known
    assert len({known, *(fingerprint(after(128, step)) for step in (0, False, "", (), 1))}) == 6
    assert fingerprint(after(64)) != known != fingerprint(after(None))


def test_a_changed_default_of_the_package_is_a_change() -> None:
    none, one, two = (of_the_package("Rule", "formulation.rules", "width", step=default) for default in (None, 1, 2))
    assert len({fingerprint(kind(128)) for kind in (none, one, two)}) == 3
    for step in (None, 1, 2):
        assert len({fingerprint(kind(128, step)) for kind in (none, one, two)}) == 1


@pytest.mark.parametrize(("module", "name"), [(__name__, "Rule"), ("formulation.rules", "rule.<locals>.Rule")])
def test_a_field_of_a_class_that_its_name_does_not_tell_is_told_even_where_it_is_none(module: str, name: str) -> None:
    own = {"__module__": module, "__qualname__": name}
    one, other = (dataclasses.make_dataclass("Rule", [field], namespace=own, repr=False) for field in ("step", "skip"))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one(None)) != fingerprint(other(None))


def test_what_the_package_exports_may_move_to_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    space, other = fingerprint(SPACE), fingerprint(of_the_package("SearchSpace", "formulation.elsewhere", "width")(1))
    function = fingerprint(paper_space)
    monkeypatch.setattr(SearchSpace, "__module__", "formulation.elsewhere")
    monkeypatch.setitem(paper_space.__globals__, "__name__", "formulation.elsewhere")
    assert (fingerprint(SPACE), fingerprint(paper_space)) == (space, function)
    assert fingerprint(of_the_package("SearchSpace", "formulation.elsewhere", "width")(1)) == other
    assert fingerprint(SearchSpace) != fingerprint(of_the_package("SearchSpace", "formulation.elsewhere", "width"))
    private = [of_the_package("Rule", module, "width")(1) for module in ("formulation.rules", "formulation.elsewhere")]
    assert fingerprint(private[0]) != fingerprint(private[1])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def canonical(value: Any) -> Any:
    """A text that differs where the fingerprint must."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{canonical(key)}:{canonical(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list | tuple):
        return type(value).__name__ + "[" + ",".join(map(canonical, value)) + "]"
    return f"{type(value).__name__} {value!r}"


@given(values, values)
def test_values_are_one_exactly_where_they_say_the_same(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (canonical(one) == canonical(other))


@given(st.floats(1, 1e99), st.floats(1, 1e99))
def test_problems_survive_json(upper: float, other: float) -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Params(), upper), Budget(WeightMemory(8), other)), (Flops(128),))
    assert fingerprint(
        problem_from_dict(json.loads(json.dumps(problem_to_dict(problem, quantity_to_dict))), quantity_from_dict)
    ) == fingerprint(problem)


def names_that_change(folder: Path, old: str, new: str, file: str = "my_costs.py") -> set[str]:
    """The things whose fingerprint changes with an edit."""
    before = {name: fingerprint(thing) for name, thing in imported().THINGS.items()}
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    after = {name: fingerprint(thing) for name, thing in imported().THINGS.items()}
    (folder / file).write_text(text)
    return {name for name in before if before[name] != after[name]}


BUILT_IN = {"partial", "another partial", "a function of NumPy", "another function of NumPy"}


def test_a_change_of_the_source_is_a_change(folder: Path) -> None:
    everything = set(imported().THINGS)
    assert names_that_change(folder, "block.width", "block.width + 1") == everything - BUILT_IN
    assert names_that_change(folder, "FACTOR = 2.0", "FACTOR = 3.0") == everything - BUILT_IN


def test_a_change_of_what_the_code_uses_is_a_change(folder: Path) -> None:
    changed = names_that_change(folder, "number / 2", "number / 3", "my_helper.py")
    assert {"energy", "cost", "a method"} <= changed
    assert not changed & {"plain", "cyclic", "scaled", *BUILT_IN}


def test_a_name_that_is_set_from_outside_is_a_change(folder: Path) -> None:
    module = imported()
    before = fingerprint(module.THINGS["cost"]), fingerprint(module.THINGS["plain"])
    module.FACTOR = 3.0  # type: ignore[attr-defined]
    changed = fingerprint(module.THINGS["cost"])
    module.PRICES["a"] = 7.0
    again = fingerprint(module.THINGS["cost"])
    assert len({before[0], changed, again}) == 3
    module.Plain.block = lambda self, block, setting: 2.0  # type: ignore[attr-defined]
    assert fingerprint(module.THINGS["plain"]) != before[1]
    assert fingerprint(dataclasses.replace(module.THINGS["energy"], note="says nothing")) == fingerprint(module.THINGS["energy"])


def test_a_script_is_known_by_its_source(tmp_path: Path) -> None:
    script = tmp_path / "script.py"

    def digest(factor: int) -> str:
        script.write_text(
            "from formulation import Measured, fingerprint\n"
            f"def cost(design):\n    return {factor} * design.depths[0]\n"
            'print(fingerprint(Measured("cost", "1", cost)))\n'
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment, timeout=1800
        ).stdout

    assert digest(1) == digest(1) != digest(2)


def test_what_is_typed_has_no_identity(tmp_path: Path) -> None:
    program = """
import json
from formulation import *
from solvers import Exhaustive, solve
problem = DesignProblem(SearchSpace.uniform(1, (256,), (1,), (1, 2)), Measured("my cost", "1", lambda design: 1.0))
try:
    fingerprint(problem)
except NoIdentity as error:
    print(json.dumps([str(error), solve(problem, Exhaustive()).provenance.problem_sha256]))
"""
    message, digest = in_a_process(tmp_path, program, "0")
    assert digest is None
    assert message.startswith("my cost has no content to know it by: there is no source of the module __main__")


class Board:
    """Holds something that is not a field."""

    def __init__(self) -> None:
        self.address = "board"

    def __call__(self, design: Any) -> float:
        return 1.0


class Slotted:
    __slots__ = ("address",)


class Listed(list[int]):
    pass


class Sum(Separable):
    """No dataclass, with a state."""

    name = "sum of mine"
    unit = "1"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def block(self, block: Any, setting: Any) -> float:
        return self.factor


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (Measured("cost", "1", Board()), r"cost has no content to know it by: a .*Board is not a dataclass"),
        (Measured("cost", "1", partial(pow, Board())), "Board is not a dataclass"),
        (Sum(2.0), "sum of mine has no content to know it by: .*Sum is not a dataclass"),
        (Slotted(), "Slotted is not a dataclass"),
        (Listed([1]), "Listed is a kind of list"),
        (Measured("cost", "1", np.random.default_rng(0).normal), "cost has no content to know it by: a numpy.random.*Generator"),
        (Measured("cost", "1", np.frompyfunc(len, 1, 1)), "not a function of NumPy's or SciPy's own"),
        (iter([1]), "list_iterator"),
        (DesignProblem(SPACE, EffectiveEntropy(), (Budget(Measured("board", "ms", Board()), 1),)), "board has no content"),
    ],
)
def test_what_has_no_content_is_refused_and_named(thing: Any, words: str) -> None:
    with pytest.raises(NoIdentity, match=words):
        fingerprint(thing)


def test_an_object_may_say_itself_what_stands_for_it() -> None:
    class Named:
        def __init__(self, address: str) -> None:
            self.address, self.calls = address, 0

        def __call__(self, design: Any) -> float:
            self.calls += 1
            return 1.0

        def identity_record(self) -> str:
            return self.address

    one, other = Named("a"), Named("b")
    before = fingerprint(one)
    one(None)
    assert fingerprint(one) == before != fingerprint(other)


def test_the_hash_of_a_solution_is_the_fingerprint_of_its_problem() -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy())
    assert solve(problem, Exhaustive()).provenance.problem_sha256 == fingerprint(problem)


def test_what_a_class_came_to_have_later_says_nothing_where_all_is_as_before() -> None:
    """These digests are those of the release before families and heads could be stated: what is stored stays known."""
    flops = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    assert fingerprint(flops).startswith("437e64797013")
    assert fingerprint(dataclasses.replace(flops, space=paper_space(tied=False))) != fingerprint(flops)


def test_what_comes_to_count_otherwise_is_another_quantity() -> None:
    params = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Params(), 60e9),))
    assert not fingerprint(params).startswith("6636af4cfe0b")  # by the rules of before
