"""Many runs: processes and a local cluster give the same rows, a worker that dies loses its own run only, nothing is run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from formulation import Architecture, Block
from formulation.records.rows import Row, RowFile
from merino_net.training import run as training
from studies.trained import runs as training_runs
from studies.trained.plan import TokenData, TrainingRun, run_key
from studies.trained.processes import workers
from studies.trained.runs import finished, train_run

PLAN = {"steps": 10, "batch": 4, "seq_len": 16, "precision": "float32", "log_every": 5, "evaluate_every": 10, "save_every": 5}


def some_runs(folder: Path, count: int = 3, seed: int = 0) -> list[TrainingRun]:
    """Runs of as many tiny designs, on random tokens."""
    tokens = folder / "tokens.npy"
    if not tokens.exists():
        np.save(tokens, np.random.default_rng(0).integers(0, 32, 4000).astype(np.uint16))
    data = TokenData(str(tokens), None, 0.1, 0, {"text": "random"})
    designs = [Architecture((Block(64, 64 * (i + 1), 1),), True, 64, 32, 16) for i in range(count)]
    plan = {**PLAN, "evaluate_at_most": 8, "seed": seed}
    return [TrainingRun(f"design {i}", design, plan, data, 1, str(folder / "runs")) for i, design in enumerate(designs)]


def plain_row(run: TrainingRun) -> Row:
    return {"design": run.label, **run.identity(), "seed": 0, "held_out_loss": 1.0, "tokens_per_s": 1.0, "process": os.getpid()}


@dataclass(frozen=True)
class KilledOnce:
    """Kills its own process the first time that it is asked for a certain design."""

    label: str
    marker: Path
    always: bool = False

    def __call__(self, run: TrainingRun) -> Row:
        if run.label == self.label and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain_row(run)


def what_is_loaded(run: TrainingRun) -> Row:
    return {**plain_row(run), "training": "merino_net.training.run" in sys.modules}


def wrong(run: TrainingRun) -> Row:
    raise ValueError(f"{run.label} cannot be trained")


def forever(run: TrainingRun) -> Row:
    Path(run.folder, run.label).write_text(str(os.getpid()))
    time.sleep(600)
    return plain_row(run)


@pytest.mark.parametrize("backend", ["processes", pytest.param("dask", marks=pytest.mark.slow)])
def test_processes_and_a_cluster_give_the_rows_of_this_process(tmp_path: Path, backend: str) -> None:
    (tmp_path / "rows").mkdir()
    here = [train_run(run) for run in some_runs(tmp_path, 2)]
    there = finished(some_runs(tmp_path, 2), RowFile(tmp_path / "rows" / "rows.jsonl"), backend, None, 2)
    assert [row["held_out_loss"] for row in there] == [row["held_out_loss"] for row in here]
    assert [row["design"] for row in there] == ["design 0", "design 1"]
    assert not list((tmp_path / "runs").iterdir())  # no network was asked for


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process imports for itself")
def test_runs_fork_from_a_process_that_has_imported_what_they_need(tmp_path: Path) -> None:
    with workers("processes", None, 2) as each:
        rows = list(each(what_is_loaded, some_runs(tmp_path)))
    assert all(row["training"] for row in rows)
    assert len({row["process"] for row in rows}) == len(rows)  # its own process nevertheless


def test_a_killed_worker_loses_its_own_run_which_is_redone(tmp_path: Path) -> None:
    runs = some_runs(tmp_path, 5)
    with workers("processes", None, 2) as each:
        rows = list(each(KilledOnce("design 1", tmp_path / "killed"), runs))
    assert (tmp_path / "killed").exists()
    assert sorted(row["design"] for row in rows) == [run.label for run in runs]


@pytest.mark.slow
def test_a_worker_of_a_cluster_is_replaced(tmp_path: Path) -> None:
    runs = some_runs(tmp_path, 3)
    with workers("dask", None, 1) as each:
        rows = list(each(KilledOnce("design 1", tmp_path / "killed"), runs))
    assert sorted(row["design"] for row in rows) == [run.label for run in runs]


def test_a_run_that_kills_every_worker_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"design 2, seed 0, .*3 times \(exit code -9\).*--jobs"):  # noqa: SIM117
        with workers("processes", None, 2) as each:
            list(each(KilledOnce("design 2", tmp_path / "killed", always=True), some_runs(tmp_path)))


def test_an_error_of_a_worker_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be trained"), workers("processes", None, 2) as each:
        list(each(wrong, some_runs(tmp_path)))


class Stubborn(ValueError):
    """An error that pickle can write and not read."""

    def __init__(self, number: int, word: str) -> None:
        super().__init__(f"{word} {number}")


def stubborn(run: TrainingRun) -> Row:
    raise Stubborn(7, "sheep")


def with_a_function(run: TrainingRun) -> Row:
    raise ValueError("no pickle", lambda: 1)


@pytest.mark.parametrize(("function", "said"), [(stubborn, "sheep 7"), (with_a_function, "no pickle")])
def test_an_error_that_cannot_travel_is_told(tmp_path: Path, function: Any, said: str) -> None:
    with pytest.raises(RuntimeError, match=said), workers("processes", None, 2) as each:
        list(each(function, some_runs(tmp_path)))


def test_a_run_that_diverges_has_a_row_and_stops_no_other(tmp_path: Path) -> None:
    good, bad = some_runs(tmp_path, 2)
    bad = replace(bad, plan={**bad.plan, "learning_rate": 1e30, "clip": 1e30})
    rows = finished([bad, good], RowFile(tmp_path / "rows.jsonl"), "processes", None, 1)
    assert "lower the learning rate" in rows[0]["error"]
    assert "held_out_loss" not in rows[0]
    assert rows[1]["held_out_loss"] > 0
    assert rows[0]["versions"]["device"] == f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def test_rows_on_disk_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    runs = some_runs(tmp_path)
    for run in runs:
        file.append(plain_row(run))
    monkeypatch.setattr(training_runs, "workers", None)
    again = finished([*reversed(runs)], RowFile(tmp_path / "rows.jsonl"), "processes", None, 2)
    assert [row["design"] for row in again] == ["design 2", "design 1", "design 0"]
    assert {run_key(row) for row in again} == {run_key(run.identity()) for run in runs}
    assert run_key(some_runs(tmp_path, 1, seed=1)[0].identity()) not in {run_key(row) for row in again}


class Killed(BaseException):
    """Ends a run at once, as a kill does; merino_net.train is killed for real in test_net_training.py."""


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = some_runs(tmp_path, 1)
    whole = train_run(run)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (again,) = some_runs(stopped, 1)
    keep = training._Keeper.on_save

    def killed(keeper: Any, *arguments: Any, **options: Any) -> None:
        keep(keeper, *arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training._Keeper, "on_save", killed)
        with pytest.raises(Killed):
            train_run(again)
    assert (again.network / "checkpoints").is_dir()
    assert train_run(again)["held_out_loss"] == whole["held_out_loss"]


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
from studies.trained.runs import workers
from tests.studies.test_training_runs import forever, some_runs
if __name__ == "__main__":
    with workers("processes", None, 2) as each:
        list(each(forever, some_runs(Path({str(tmp_path)!r}))))
"""
    )
    (tmp_path / "runs").mkdir()
    root = Path(__file__).parents[2]
    started = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    files = [tmp_path / "runs" / f"design {number}" for number in (0, 1)]
    until = time.monotonic() + 1200
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < until
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.wait()
    while any(_alive(int(file.read_text())) for file in files):
        assert time.monotonic() < until, "a worker outlived the process that started it"
        time.sleep(0.1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
