"""Certificates of additive claims: the checker accepts what is true and refuses what is not, whatever the multipliers say."""

from __future__ import annotations

import ast
import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import check
from solvers.certificate import Additive, Links, OfParts, Uncheckable, above_rounding

FILE = Path(check.__file__)


def verdict(data: Any, labels: int = check.LABELS) -> str:
    """accepted, refused or not checkable."""
    try:
        check.check(json.loads(json.dumps(data)), check.Count(most=labels))
    except check.Refused:
        return "refused"
    except check.NotCheckable:
        return "not checkable"
    return "accepted"


def choices(data: dict[str, Any]) -> Iterator[tuple[Fraction, bool]]:
    """Worth of every choice of an additive certificate, and whether it is within the limits; by the plain definitions."""
    links = data["links"]
    for items in itertools.product(*(range(len(row)) for row in data["values"])):
        if any(data["values"][i][j] is None for i, j in enumerate(items)):
            continue
        rows = [data["values"], *data["costs"]]
        totals = [sum((Fraction(row[i][j]) for i, j in enumerate(items)), Fraction(0)) for row in rows]
        if links is not None:
            states = [links["states"][i][j] for i, j in enumerate(items)]
            pairs = list(itertools.pairwise(states))
            if not all(links["steps"][i][s][t] for i, (s, t) in enumerate(pairs)):
                continue
            if links.get("joints") is not None:
                joints = [links["joints"]["values"], *links["joints"]["costs"]]
                for r, own in enumerate(joints):
                    totals[r] += sum((Fraction(own[i][s][t]) for i, (s, t) in enumerate(pairs)), Fraction(0))
        within = all(total <= Fraction(limit) for total, limit in zip(totals[1:], data["limits"], strict=True))
        yield totals[0] + Fraction(data["fixed"]), within


def is_true(data: dict[str, Any]) -> bool:
    """Whether an additive claim holds, by enumeration."""
    worths = [worth for worth, within in choices(data) if within]
    if data["bound"] is None:
        return not worths
    return all(worth <= Fraction(data["bound"]) for worth in worths)


def random_claim(draw: np.random.Generator, linked: bool = False, whole: bool = False) -> dict[str, Any]:
    """A true claim on a small random problem, with multipliers that may be any."""
    positions, budgets = int(draw.integers(1, 5)), int(draw.integers(0, 4))
    sizes = draw.integers(1, 5, positions)

    def terms() -> list[np.ndarray]:
        return [draw.integers(-3, 9, n).astype(float) if whole else draw.normal(3, 4, n) for n in sizes]

    values, costs = terms(), [terms() for _ in range(budgets)]
    links, joints = None, None
    if linked:
        counts = draw.integers(1, 4, positions)
        states = [draw.integers(0, count, n) for count, n in zip(counts, sizes, strict=True)]
        links = Links(states, [draw.random(pair) < 0.7 for pair in itertools.pairwise(counts)])
        if draw.random() < 0.5:
            joints = [[draw.normal(0, 1, pair) for pair in itertools.pairwise(counts)] for _ in range(1 + budgets)]
    limits = [float(sum(draw.choice(row) for row in cost) + draw.normal()) for cost in costs]
    order = np.arange(positions) if linked else draw.permutation(positions)
    multipliers = draw.exponential(1, (int(draw.integers(0, 4)), budgets))
    data = Additive(
        values, costs, limits, order, multipliers, 0.0, fixed=float(draw.normal()), links=links, joints=joints
    ).to_dict()
    worths = [worth for worth, within in choices(data) if within]
    data["bound"] = above_rounding(float(max(worths)), [1.0]) if worths else None
    return data


@pytest.mark.parametrize("seed", range(36))
def test_true_claims_are_accepted_and_false_ones_refused(seed: int) -> None:
    draw = np.random.default_rng(seed)
    data = random_claim(draw, linked=seed % 3 == 0, whole=seed % 2 == 0)
    assert is_true(data)
    assert verdict(data) == "accepted"
    worths = sorted(worth for worth, within in choices(data) if within)
    for bound in {float(worth) for worth in worths[-3:]}:  # at each of the best designs, and just below it
        for own in (bound, np.nextafter(bound, -np.inf)):
            data["bound"] = float(own)
            assert (verdict(data) == "accepted") == is_true(data)
    data["bound"] = None
    assert (verdict(data) == "accepted") == (not worths)


def with_design(seed: int) -> dict[str, Any]:
    """A true claim with the best choice as its design."""
    draw = np.random.default_rng(seed)
    values, costs = draw.normal(5, 2, (4, 4)), draw.uniform(1, 5, (2, 4, 4))
    limits = costs.mean(axis=(1, 2)) * 4
    designs = list(itertools.product(range(4), repeat=4))
    at = np.arange(4)
    within = [design for design in designs if (costs[:, at, design].sum(axis=1) <= limits).all()]
    best = max(within, key=lambda design: values[at, design].sum())
    value = float(values[at, best].sum())
    return Additive(values, costs, limits, at, draw.uniform(0, 1, (3, 2)), above_rounding(value), best, value).to_dict()


def _scaled(path: tuple[Any, ...], factor: float) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        at = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = at[path[-1]] * factor

    return change


def _each(path: str, factor: float) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[path] = np.multiply(data[path], factor).tolist()

    return change


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.__setitem__(key, value)


def _tampered() -> list[Callable[[dict[str, Any]], None]]:
    """Changes to the numbers of a certificate that leave its shape as it is: some make the claim false, some do not."""
    changes = [_scaled(("bound",), factor) for factor in (0.5, 0.9, 0.99, 0.999, 1 - 1e-9, 1 - 1e-12, 1.01, 2.0)]
    changes += [_scaled(("limits", k), factor) for k in (0, 1) for factor in (0.5, 0.9, 1.1, 1.5, 3.0)]
    changes += [_scaled(("values", i, j), factor) for i in range(4) for j in range(4) for factor in (1.2, 3.0)]
    changes += [_scaled(("costs", k, i, j), 0.2) for k in (0, 1) for i in range(4) for j in range(4)]
    changes += [
        _each("values", 1.0000001),
        _each("costs", 0.5),
        _each("costs", 2.0),
        _each("limits", 2.0),
        _each("multipliers", 0.0),
    ]
    changes += [lambda data, i=i: data["values"][i].reverse() for i in range(4)]  # type: ignore[misc]
    changes += [lambda data, k=k: data["costs"][k].reverse() for k in (0, 1)]  # type: ignore[misc]
    changes += [lambda data: data["limits"].reverse(), lambda data: data["costs"].reverse(), lambda data: data["order"].reverse()]
    changes += [_set("design", list(design)) for design in itertools.product((0, 3), repeat=4)]
    changes += [_set("bound", None), _set("design", None), _set("multipliers", []), _set("fixed", 1.0), _set("objective", 0.0)]
    return changes


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_tampered_certificates(seed: int) -> None:
    refused, changes = 0, _tampered()
    for change in changes:
        data = copy.deepcopy(with_design(seed))
        assert verdict(data) == "accepted"
        change(data)
        holds = is_true(data)
        design = data["design"]
        if design is not None:
            at = range(4)
            worth = sum(Fraction(data["values"][i][design[i]]) for i in at) + Fraction(data["fixed"])
            within = all(
                sum(Fraction(cost[i][design[i]]) for i in at) <= limit
                for cost, limit in zip(data["costs"], data["limits"], strict=True)
            )
            holds &= (
                within and abs(worth - Fraction(data["objective"])) <= Fraction(1, 10**9) * abs(worth) and data["bound"] is not None
            )
        else:
            holds &= data["objective"] is None
        assert (verdict(data) == "accepted") == holds
        refused += not holds
    assert len(changes) >= 100
    assert refused >= 50  # most of the changes do harm: the test can fail


def _malformed() -> dict[str, Callable[[dict[str, Any]], Any]]:
    def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(data: dict[str, Any]) -> None:
            at = data
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value

        return change

    return {
        "lacks bound": lambda data: data.pop("bound"),
        "unknown key": put("boundd", value=1.0),
        "multiplier 1 of set 0 is negative": put("multipliers", 0, 1, value=-1e-300),
        "item 1 is not a finite number": put("values", 0, 1, value=True),
        "values at position 2 is not a list": put("values", 2, value=7),
        "costs has 1 entries": lambda data: data["costs"].pop(),
        "terms has 3 entries": lambda data: data["costs"][0].pop(),
        "position 0 has 3 entries": lambda data: data["costs"][1][0].pop(),
        "null in some parts only": put("values", 0, 0, value=None),
        "design has 3 entries": lambda data: data["design"].pop(),
        "item at position 0 is not a whole number from 0 to 3": put("design", 0, value=4),
        "item at position 1 is not a whole number from 0 to 3": put("design", 1, value=-1),
        "item at position 2 is not a whole number from 0 to 3": put("design", 2, value=1.0),
        "order has a position twice": put("order", value=[0, 0, 1, 2]),
        "order has 3 entries": put("order", value=[0, 1, 2]),
        "multipliers 0 has 1 entries": put("multipliers", 0, value=[1.0]),
        "limit 0 is not a finite number": put("limits", 0, value="5"),
        "bound is not a finite number": put("bound", value=[]),
        "format is not": put("format", value="merino certificate 2"),
        "kind is one of": put("kind", value="proved"),
        "values has no positions": put("values", value=[]),
        "one is given, and no choice is said": put("bound", value=None),
        "links lacks steps": put("links", value={"states": []}),
    }


@pytest.mark.parametrize("words", _malformed())
def test_malformed_certificates_are_refused_with_the_step(words: str) -> None:
    data = with_design(3)
    _malformed()[words](data)
    with pytest.raises(check.Refused, match=words.replace("[", r"\[")):
        check.check(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.floats(-2, 2), st.integers(0, 3))
def test_no_false_claim_is_accepted(seed: int, linked: bool, shift: float, change: int) -> None:
    draw = np.random.default_rng(seed)
    data = random_claim(draw, linked)
    if change == 0 and data["bound"] is not None:
        data["bound"] += shift
    elif change == 1 and data["limits"]:
        data["limits"][0] += shift
    elif change == 2:
        row = data["values"][int(draw.integers(len(data["values"])))]
        row[int(draw.integers(len(row)))] += shift
    else:
        data["bound"] = None
    assert (verdict(data) == "accepted") == is_true(data)


TRUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 50), TRUE, st.randoms())
def test_anything_in_place_of_anything_ends_in_a_verdict(seed: int, put: Any, chance: Any) -> None:
    data: Any = random_claim(np.random.default_rng(seed), linked=seed % 2 == 0)
    at: Any = data
    path: list[tuple[Any, Any]] = []
    while isinstance(at, dict | list) and at and (not path or chance.random() < 0.8):
        key = chance.choice(sorted(at)) if isinstance(at, dict) else chance.randrange(len(at))
        path.append((at, key))
        at = at[key]
    owner, key = path[-1]
    owner[key] = put
    assert verdict(data) in ("accepted", "refused", "not checkable")


def test_too_many_labels_are_not_checkable() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(0, 1, (12, 4))
    data = Additive(values, values[None] + draw.normal(0, 1e-6, (1, 12, 4)), [0.0], range(12), [], 1e-5).to_dict()
    with pytest.raises(check.NotCheckable, match=r"the label pass: more than 10 labels at position \d+; --labels allows more"):
        check.check(data, check.Count(most=10))


def test_whole_numbers_need_no_more_than_the_next_one() -> None:
    """Every choice within the limit of a subset sum is bounded by the limit, 0.6 above the optimum."""
    draw = np.random.default_rng(1)
    values = np.stack((np.zeros(40), 2 * draw.integers(500, 1000, 40)), axis=1)
    data = Additive(values, values[None], [20001.6], range(40), [[1.0]], 20001.0).to_dict()
    count = check.Count(most=10)
    check.check(data, count)
    assert count.labels == 0


def test_union() -> None:
    first, second = with_design(4), with_design(5)

    class Given:
        def __init__(self, data: dict[str, Any]) -> None:
            self.data = data

        def to_dict(self) -> dict[str, Any]:
            return self.data

    union = OfParts({"a": Given(first), "b": Given(second)}, 0.0).to_dict()
    bound, worth = check.check(union)
    assert bound == max(Fraction(first["bound"]), Fraction(second["bound"]))
    assert float(worth) == pytest.approx(max(first["objective"], second["objective"]))  # type: ignore[arg-type]
    union["bound"] = min(first["bound"], second["bound"])
    assert verdict(union) == "refused"
    union = OfParts({"a": Given(first), "b": Uncheckable("a tree of an engine")}, 100.0).to_dict()
    with pytest.raises(check.NotCheckable, match="b: a tree of an engine"):
        check.check(union)


def run(tmp_path: Path, text: str | bytes, *flags: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "certificate.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return subprocess.run([sys.executable, "-I", "-S", str(FILE), str(path), *flags], capture_output=True, text=True)


def test_command_in_a_bare_interpreter(tmp_path: Path) -> None:
    data = with_design(6)
    done = run(tmp_path, json.dumps(data))
    assert done.returncode == 0
    assert done.stdout.startswith(f"accepted: no choice within the limits is worth more than {data['bound']:.17g}; the one given")
    done = run(tmp_path, json.dumps({**data, "bound": data["bound"] - 1}))
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("refused: design: it is worth")
    done = run(tmp_path, json.dumps(Uncheckable("a tree").to_dict()))
    assert (done.returncode, done.stdout) == (4, "not checkable: a tree\n")
    assert run(tmp_path, "{}", "--labels", "0").returncode == 2
    missing = subprocess.run([sys.executable, "-I", "-S", str(FILE), str(tmp_path / "no.json")], capture_output=True, text=True)
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"kind": NaN}', "NaN is not a finite number"),
        ('{"kind": -Infinity}', "-Infinity is not a finite number"),
        ('{"kind": 1, "kind": 2}', "a key twice"),
        ("1" * 5000, "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "not an object"),
        (json.dumps(with_design(1))[:-50], "not valid JSON"),
        (json.dumps(with_design(1)).replace('"fixed": 0.0', '"fixed": 1e999'), "fixed is not a finite number"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    done = run(tmp_path, text)
    assert (done.returncode, done.stderr) == (3, "")
    assert words in done.stdout


def test_imports_the_standard_library_alone() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def one_item_each(**changes: Any) -> dict[str, Any]:
    """A true claim about one position, changed."""
    plain = {"values": [[2, 1]], "costs": [], "limits": [], "fixed": 0, "design": [0], "bound": 2, "multipliers": [], "order": [0]}
    return {"format": check.FORMAT, "kind": "additive", **plain, **changes}


def test_a_maximum_in_the_objective_is_not_left_out_of_a_pass() -> None:
    parts = [
        {"name": "x", "combine": "sum", "fixed": 0, "terms": [[0, 0]]},
        {"name": "y", "combine": "max", "fixed": 0, "terms": [[1, 5]]},
    ]
    claim = {"format": check.FORMAT, "kind": "boxes", "parts": parts, "objective": {"formula": "sum", "weights": [0, 1]}}
    claim |= {"budgets": [], "design": None, "nodes": [{"close": {"labels": [], "order": [0]}}]}
    assert [verdict({**claim, "bound": bound}) for bound in (0, 4, 5)] == ["refused", "refused", "accepted"]


@pytest.mark.parametrize("number", [2**53 + 1, 10**400])
def test_whole_numbers_that_no_double_is_are_refused(number: int) -> None:
    assert verdict(one_item_each()) == "accepted"
    with pytest.raises(check.Refused, match="bound is not a finite number, or a whole one that no double is"):
        check.check(one_item_each(bound=number))


def test_what_is_printed_is_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts of a file neither move the cursor nor begin a line, and a gap beyond all doubles has words."""
    file = tmp_path / "certificate.json"
    for why in ("\r\x1b[2Kaccepted: it is true", "\naccepted: it is true", "\ud800"):
        file.write_text(json.dumps({"kind": "not checkable", "why": why}))
        assert check.main([str(file)]) == 4
        told = capsys.readouterr().out
        assert told.startswith("not checkable: '\\")
        assert told.rstrip("\n").isprintable()
    file.write_text(json.dumps(one_item_each(values=[[5e-324, 5e-324]], bound=1e308)))
    assert check.main([str(file)]) == 0
    assert "gap a number beyond 1.8e308" in capsys.readouterr().out
