"""The table of mutants is fresh, and the command that runs them tells a killed one from a survivor."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests import mutants


def test_every_mutant_is_in_the_code() -> None:
    assert mutants.stale(mutants.ROOT) == []
    assert len(mutants.MUTANTS) >= 73
    assert sum(mutant.file in (mutants.DP, mutants.COMPLETION) for mutant in mutants.MUTANTS) >= 25
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function and one test."""
    (tmp_path / "code_").mkdir()
    (tmp_path / "code_" / "sums.py").write_text("def add(a, b):\n    return a + b + 0\n", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    test = "from code_.sums import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
    (tmp_path / "tests" / "test_sums.py").write_text(test, encoding="utf-8")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "COPIED", ("code_", "tests"))
    return tmp_path


def mutant(old: str, new: str, reason: str = "") -> mutants.Mutant:
    return mutants.Mutant("code_/sums.py", old, new, "tests/test_sums.py", reason)


def in_process(tree: Path, tests: str, seconds: float) -> int:
    """What the one test would say, in less time than pytest takes to start."""
    return int(runpy.run_path(str(tree / "code_" / "sums.py"))["add"](2, 3) != 5)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *table: mutants.Mutant) -> tuple[int, str]:
    monkeypatch.setattr(mutants, "MUTANTS", table)
    code = mutants.main(["--jobs", "1"])
    return code, capsys.readouterr().out


def test_survivors_are_listed_and_end_with_1(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutants, "_pytest", in_process)
    before = (tree / "code_" / "sums.py").read_text(encoding="utf-8")
    killed, same = mutant("a + b + 0", "a - b"), mutant("+ 0", "- 0")
    code, said = run(monkeypatch, capsys, killed, same)
    assert code == 1
    assert "1 of 2 mutants killed" in said
    assert "SURVIVED  code_/sums.py: + 0 → - 0" in said
    code, said = run(monkeypatch, capsys, killed, mutant("+ 0", "- 0", reason="0 = −0"))
    assert code == 0
    assert "1 of 1 mutants killed, 1 more that no test" in said
    assert (tree / "code_" / "sums.py").read_text(encoding="utf-8") == before


def test_a_stale_table_is_said_and_nothing_is_run(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(monkeypatch, capsys, mutant("a * b", "a - b"), mutant("+", "-"), mutant("return", "return return"))
    assert code == 1
    assert "the text occurs 0 times" in said
    assert "the text occurs 2 times" in said
    assert "invalid syntax" in said
    assert "killed" not in said


def test_tests_that_fail_anyway_show_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "tests" / "test_sums.py").write_text("def test_add():\n    assert False\n", encoding="utf-8")
    code, said = run(monkeypatch, capsys, mutant("a + b", "a - b"))
    assert code == 1
    assert "fail without any mutant" in said
