"""One way to go on for all studies: finished rows are handed out, the rest is run; packed rows count like plain ones."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from formulation import DesignProblem, EffectiveEntropy, SearchSpace
from formulation.fingerprint import cell_key, content_key
from formulation.records.rows import Resume, Row, RowFile, StudyStopped, pack, packed_path
from hardware_models import Device, write_device
from studies.compare_solvers import study as compare_solvers
from studies.latency_check import study as latency_check
from studies.net_speed import study as net_speed
from studies.pareto import study as pareto
from studies.scaling import study as scaling
from studies.trained import runs as training_runs
from studies.trained.searches import Searches
from tests.hardware_models.test_latency import TABLE
from tests.studies.test_latency_check import Machine
from tests.studies.test_net_speed import counting_bench
from tests.studies.test_training_runs import plain_row, some_runs

SPACE = SearchSpace.uniform(3, (512, 640, 768), (1, 2), (1, 2, 3))
SMALL = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 4))


def compared(folder: Path, patch: pytest.MonkeyPatch) -> None:
    flags = ["--space", "space.json", "--budget", "flops=60e9", "--solvers", "exhaustive,dp,random", "--seeds", "2"]
    assert compare_solvers.main([*flags, "--seconds", "100", "--output", str(folder)]) == 0


def scaled(folder: Path, patch: pytest.MonkeyPatch) -> None:
    flags = ["--quick", "--sweeps", "budgets,menu", "--solvers", "exhaustive,dp"]
    assert scaling.main([*flags, "--output", str(folder)]) == 0


def front(folder: Path, patch: pytest.MonkeyPatch) -> None:
    flags = ["--space", "space.json", "--minimize", "params", "--seeds", "2", "--seconds", "100", "--evaluations", "300"]
    assert pareto.main([*flags, "--output", str(folder)]) == 0


def searched(folder: Path, patch: pytest.MonkeyPatch) -> None:
    searches = Searches(folder)
    for name, entropy in (
        ("whole", EffectiveEntropy()),
        ("plain", EffectiveEntropy(weighting=False)),
        ("again", EffectiveEntropy()),
    ):
        searches.optimum(DesignProblem(SPACE, entropy), "no budget", name)


def trained(folder: Path, patch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def here(*_: Any) -> Iterator[Callable[..., Iterator[Row]]]:
        yield lambda function, runs: map(plain_row, runs)

    patch.setattr(training_runs, "workers", here)
    training_runs.finished(some_runs(folder.parent, 4), RowFile(folder / "rows.jsonl"), "processes", None, 1)


def timed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    assert net_speed.measure_and_write([counting_bench([])], folder) == 0


def held_to_its_word(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hardware_models.engines.engine_of", lambda table: Machine(error=0))
    patch.setattr(latency_check, "FLOPS_BUDGETS", (1e9,))
    flags = ["toy.json", "--space", "small.json", "--networks", "20", "--limits", "2", "--turns", "2"]
    assert latency_check.main([*flags, "--output", str(folder)]) == 0


STUDIES = {
    "compare_solvers": compared,
    "scaling": scaled,
    "pareto": front,
    "searches": searched,
    "training_runs": trained,
    "net_speed": timed,
    "latency_check": held_to_its_word,
}
CLOCK = ("seconds", "trace", "peak_memory_bytes", "other_cores", "process")
"""What differs from run to run."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_dict()))
    (tmp_path / "small.json").write_text(json.dumps(SMALL.to_dict()))
    write_device(Device("toy", (TABLE,)), tmp_path / "toy.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def undated(path: Path) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in RowFile(path).rows]


def stop_after(rows: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when so many rows have been written."""
    append, written = RowFile.append, 0

    def counting(self: RowFile, row: Row) -> None:
        nonlocal written
        append(self, row)
        written += 1
        if written == rows:
            raise KeyboardInterrupt

    patch.setattr(RowFile, "append", counting)


@pytest.mark.parametrize("study", STUDIES)
def test_a_stopped_study_goes_on_and_measures_nothing_twice(
    study: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = folder / "whole", folder / "stopped"
    for one in (whole, stopped):
        one.mkdir()
    STUDIES[study](whole, monkeypatch)
    (rows,) = (path for path in whole.glob("*.jsonl") if path.stem in ("rows", "searches"))
    path = stopped / rows.name
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        # Searches are a part of studies, and what is asked of them one by one has no progress to end.
        with pytest.raises(KeyboardInterrupt, match=None if study == "searches" else rf"what is finished is kept in {path}"):
            STUDIES[study](stopped, patch)
    kept = path.read_bytes()
    assert kept.count(b"\n") == 2
    path.write_bytes(kept + kept[:100])  # the worst moment for a kill is in the middle of a line
    STUDIES[study](stopped, monkeypatch)
    assert path.read_bytes().startswith(kept)
    assert undated(path) == undated(rows)
    pack(path)
    before = packed_path(path).read_bytes()
    monkeypatch.setattr(RowFile, "append", None)  # nothing is left to measure
    capsys.readouterr()
    STUDIES[study](stopped, monkeypatch)
    assert (path.exists(), packed_path(path).read_bytes()) == (False, before)
    count = len(undated(path))
    said = {"scaling": f"rows.jsonl holds {count} of {count} runs", "net_speed": "rows.jsonl holds 3 of 3 turns"}
    assert said.get(study, "") in capsys.readouterr().err


@pytest.mark.parametrize("study", STUDIES)
def test_two_do_not_write_to_one_folder(study: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    (folder / "out").mkdir()
    with (folder / "out" / ".lock").open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"out is in use by another process"):
            STUDIES[study](folder / "out", monkeypatch)
    assert not list((folder / "out").glob("*.jsonl"))


# The rows


def test_packed_rows_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(3):
        RowFile(path).append({"a": number})
    written = path.read_bytes()
    pack(path)
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl.xz"]
    assert lzma.decompress(packed_path(path).read_bytes()) == written
    file = RowFile(path)
    file.append({"a": 3})
    assert path.read_bytes() == b'{"a": 3}\n'
    assert RowFile(path).rows == file.rows == [{"a": number} for number in range(4)]
    with path.open("ab") as cut:
        cut.write(b'{"a": 4')
    pack(path)
    pack(path)  # nothing is left to do
    assert list(tmp_path.glob("rows*")) == [packed_path(path)]
    assert RowFile(path).rows == file.rows


def test_a_stop_between_packing_and_removing_counts_no_row_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path).append({"a": 0})
    pack(path)
    for number in (1, 2):
        RowFile(path).append({"a": number})
    plain = path.read_bytes()
    pack(path)
    path.write_bytes(plain)  # what was to be removed next
    assert [row["a"] for row in RowFile(path).rows] == [0, 1, 2]
    RowFile(path).append({"a": 3})
    assert path.read_bytes() == b'{"a": 3}\n'
    assert [row["a"] for row in RowFile(path).rows] == [0, 1, 2, 3]


def test_rows_that_are_dropped_are_dropped_from_both_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(4):
        RowFile(path).append({"a": number})
        if number == 1:
            pack(path)
    file = RowFile(path)
    file.keep(lambda row: row["a"] in (1, 3))
    assert lzma.decompress(packed_path(path).read_bytes()) == b'{"a": 1}\n'
    assert path.read_bytes() == b'{"a": 3}\n'
    assert RowFile(path).rows == file.rows == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("content", [b"no xz", lzma.compress(b'{"a": 1}\n{"a"'), lzma.compress(b'{"a": 1}\n')[:-9]])
def test_damaged_packed_rows_are_left_alone(content: bytes, tmp_path: Path) -> None:
    packed_path(tmp_path / "rows.jsonl").write_bytes(content)
    for read in (RowFile, pack):
        with pytest.raises(ValueError, match=r"rows\.jsonl\.xz is damaged"):
            read(tmp_path / "rows.jsonl")
    assert packed_path(tmp_path / "rows.jsonl").read_bytes() == content


def test_rows_under_other_conditions_are_not_mixed(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.begin({"conditions": {"sizes": (1, 2)}})
    again = RowFile(tmp_path / "rows.jsonl")
    again.begin({"conditions": {"sizes": (1, 2)}})
    with pytest.raises(ValueError, match=r"are of .*\[1, 2\].*, this run is of .*\(1, 3\)"):
        again.begin({"conditions": {"sizes": (1, 3)}})
    assert RowFile(tmp_path / "rows.jsonl").rows == [{"conditions": {"sizes": [1, 2]}}]


# The resume


def test_rows_are_checked_once_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    for value in (1, 2):
        file.append({"key": "a", "value": value})
    file.append({"key": "b"})  # not finished: it lacks a column
    file.append({"key": 7, "value": 3})
    resume = Resume[str](file, ["a", "b"], columns={"value"})
    checked: list[Row] = []
    for _ in range(2):
        assert resume.row("a", lambda: pytest.fail("it is there"), checked.append)["value"] == 2
    assert resume.stored("b", checked.append) is None
    assert resume.row("b", lambda: {"key": "b", "value": 4}, checked.append)["value"] == 4
    assert resume.stored("b", checked.append) == {"key": "b", "value": 4}
    assert checked == [{"key": "a", "value": 2}]  # what was run here and now needs no check
    assert "a" in resume
    assert 7 not in resume
    assert [row["value"] for row in resume.rows] == [2, 4]


def test_a_row_that_does_not_hold_is_not_handed_out(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append({"key": "a"})
    resume = Resume[str](file)

    def wrong(row: Row) -> None:
        raise ValueError("it was changed")

    for _ in range(2):
        with pytest.raises(ValueError, match="it was changed"):
            resume.row("a", dict, wrong)


def test_what_has_no_identity_or_is_wanted_again_is_run(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    for _ in range(2):
        Resume[str](file, [None]).row(None, lambda: {"key": None})
        Resume[str](file, ["a"], again=True).row("a", lambda: {"key": "a"})
    assert [row["key"] for row in file.rows] == [None, "a", None, "a"]
    assert cell_key(lambda: 1, "a") is not None
    assert cell_key(object()) is None
    assert content_key("a", [1, None]) == content_key("a", [1, None]) != content_key("a", [1.0, None])


@pytest.mark.parametrize(("unit", "words"), [("box", "2 boxes"), ("search", "2 searches"), ("turn", "2 turns")])
def test_what_is_there_is_said_where_the_whole_is_not_known(
    unit: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    with Resume[str](file, unit=unit):
        assert "holds" not in capsys.readouterr().err
    for key in "ab":
        file.append({"key": key})
    with Resume[str](file, unit=unit):
        assert f"rows.jsonl holds {words}\n" in capsys.readouterr().err


def test_the_progress_counts_what_is_there_and_leaves_out_what_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    file.append({"key": "a"})
    with pytest.raises(StudyStopped, match="go") as stop, Resume[str](file, ["a", "a", "b", "c", None], unit="turn") as resume:  # noqa: PT012
        assert capsys.readouterr().err.startswith("rows.jsonl holds 1 of 4 turns\n")
        assert resume._bar is not None
        assert (resume._bar.n, resume._bar.total) == (1, 4)
        resume.row("a", dict)
        resume.add("b", {"key": "b"})
        resume.skip(["a", "c"])
        assert (resume._bar.n, resume._bar.total) == (2, 3)
        raise KeyboardInterrupt
    with pytest.raises(StudyStopped) as outer, Resume[str](file):
        raise stop.value
    assert outer.value is stop.value
