"""Many training runs at once: each its own process, or tasks of a cluster."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from formulation.command.processes import end_with_parent, keep_process
from formulation.records.rows import Row
from studies.trained.plan import TrainingRun

ATTEMPTS = 3
"""How often a run is started whose worker dies: a kill is bad luck once, and a cause (too little memory) thrice."""


_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


_PRELOADED = ["studies.trained.runs", "merino_net.training.run"]
"""Imported once by the server that forks the processes of the runs, in place of once for every run."""


@contextmanager
def workers(
    backend: str, scheduler: str | None, jobs: int
) -> Iterator[Callable[[Callable[[TrainingRun], Row], list[TrainingRun]], Iterator[Row]]]:
    """What maps a function over runs, rows as they come: by `processes` of this machine, or by a Dask cluster.

    A process does one run: one that is killed takes nothing else with it, and its run is started again, `ATTEMPTS` times in all.
    `dask`: a local cluster of `jobs` workers, which replaces workers that die in the same way, or the one at `scheduler`, whose own
    setting `distributed.scheduler.allowed-failures` says how often a run is started again.
    """
    if backend != "dask":
        with _server():
            yield lambda function, runs: _by_processes(function, runs, jobs)
        return
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise ImportError("the backend dask needs the package distributed; install it with: pip install distributed") from None
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1}))
        if scheduler is None:
            local = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            scheduler = stack.enter_context(local).scheduler_address
        client = stack.enter_context(Client(scheduler))

        def by_dask(function: Callable[[TrainingRun], Row], runs: list[TrainingRun]) -> Iterator[Row]:
            futures = [client.submit(function, run, pure=False) for run in runs]
            return (future.result() for future in as_completed(futures))

        yield by_dask


def _by_processes(function: Callable[[TrainingRun], Row], runs: list[TrainingRun], jobs: int) -> Iterator[Row]:
    """Rows as they come from `jobs` processes at a time, one for each run."""
    waiting: queue.SimpleQueue[TrainingRun] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Row | BaseException] = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    stopped = threading.Event()
    alive: set[Any] = set()
    guard = threading.Lock()

    def started(process: Any) -> bool:
        """Start a process unless all are being stopped."""
        with guard:
            if not stopped.is_set():
                process.start()
                alive.add(process)
            return not stopped.is_set()

    def serve() -> None:
        """Take runs until none is left, each in its own process."""
        while not stopped.is_set():
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.put(_attempts(function, run, started, alive))
            except BaseException as error:  # whatever it is, the parent must not wait for ever
                outcomes.put(error)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(jobs, len(runs)))]
    for thread in threads:
        thread.start()
    try:
        for _ in runs:
            outcome = _next(outcomes)
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        with guard:
            stopped.set()
            for process in alive:
                process.kill()
        for thread in threads:
            thread.join()


@contextmanager
def _server() -> Iterator[None]:
    """While it lasts, what forks the processes ends with this one; by itself it would finish its imports first."""
    if _METHOD == "spawn":
        yield
        return
    from multiprocessing import forkserver

    if sys.platform == "linux":  # elsewhere some system libraries do not survive a fork
        forkserver.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()
    with keep_process(forkserver._forkserver._forkserver_pid):  # type: ignore[attr-defined]
        yield


def _next(outcomes: queue.SimpleQueue[Row | BaseException]) -> Row | BaseException:
    """The next outcome. On Windows a wait without an end would not hear Ctrl-C."""
    while True:
        try:
            return outcomes.get(timeout=1)
        except queue.Empty:
            continue


def _attempts(
    function: Callable[[TrainingRun], Row], run: TrainingRun, started: Callable[[Any], bool], alive: set[Any]
) -> Row | BaseException:
    """What came of a run: its row, or the error that it ended in."""
    context = multiprocessing.get_context(_METHOD)
    code: int | None = None
    for _ in range(ATTEMPTS):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, function, run), daemon=True)  # type: ignore[attr-defined]
        if not started(process):
            break
        sender.close()
        with keep_process(process.pid):
            try:
                outcome: Row | BaseException = receiver.recv()
                process.join()
                return outcome
            except EOFError:
                process.join()
                code = process.exitcode
            finally:
                alive.discard(process)
    return ValueError(
        f"the worker of {run.label}, seed {run.plan['seed']}, died {ATTEMPTS} times (exit code {code}); if the machine is short of "
        "memory, lower --jobs or --batch, and run the same command again"
    )


def _work(sender: Connection, function: Callable[[TrainingRun], Row], run: TrainingRun) -> None:
    """What a process does. Ctrl-C is the parent's to answer; a process whose parent is gone works for nobody and ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        sender.send(function(run))
    except Exception as error:  # every error is the parent's to raise
        try:
            pickle.loads(pickle.dumps(error))
            sender.send(error)
        except Exception:  # one that cannot travel is told
            sender.send(RuntimeError("".join(traceback.format_exception(error))))
    sender.close()
