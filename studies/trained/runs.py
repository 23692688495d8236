"""Many small training runs on equal terms: a run as data, what it trains on, the processes or cluster that do the work, its row.

Which designs take part and what their losses mean is each study's own. A run that is on disk is never run again, one that was
stopped goes on from its last checkpoint, and a worker that dies loses its own run only, which is started anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pickle
import queue
import shutil
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from formulation import Architecture
from formulation.architecture import positive_integer
from formulation.command.processes import end_with_parent, keep_process
from formulation.command.words import counted
from formulation.records.files import cache_folder
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from studies.trained.side_by_side import Candidate

if TYPE_CHECKING:
    from merino_net.training.run import TrainingPlan

ATTEMPTS = 3
"""How often a run is started whose worker dies: a kill is bad luck once, and a cause (too little memory) thrice."""
SMALL_NETWORKS: dict[str, Any] = {
    "sequence": 128,
    "steps": 1000,
    "batch": 8,
    "learning_rate": 4e-3,
    "optimizer": "muon",
    "evaluate_at_most": 1024,
}
"""Defaults of `add_plan_arguments` on which most networks of about a million parameters pass the bigram loss (piloted)."""
PACKAGES = ("numpy", "torch", "transformers", "accelerate", "tokenizers")
"""Whose versions a training's result names."""
_IDENTITY = ("architecture", "plan", "data")
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PRELOADED = ["studies.trained.runs", "merino_net.training.run"]
"""Imported once by the server that forks the processes of the runs, in place of once for every run."""


@dataclass(frozen=True)
class TokenData:
    """Tokens that runs train on and are evaluated on, in files that every worker can read.

    training, held_out   paths of the token arrays; held_out None: `held_out_share` of the sequences
    end_of_text          token that ends every document
    identity             what tells these data from others: fingerprints of the texts, the vocabulary, the number of tokens
    """

    training: str
    held_out: str | None
    held_out_share: float
    end_of_text: int
    identity: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training run: all that a worker, perhaps on another machine, needs to know.

    label   what the row is called; another label makes it no other run
    plan    the fields of a `TrainingPlan`, the seed among them
    folder  where runs keep their checkpoints while they last, each in a folder of its own
    """

    label: str
    architecture: Architecture
    plan: dict[str, Any]
    data: TokenData
    threads: int
    folder: str

    def identity(self) -> Row:
        """What a finished row of this run holds of it."""
        return {"architecture": self.architecture.to_dict(), "plan": self.plan, "data": self.data.identity}

    @property
    def network(self) -> Path:
        """The folder of this run's network."""
        return Path(self.folder) / hashlib.sha256(run_key(self.identity()).encode()).hexdigest()[:16]


def run_key(row: Row) -> str:
    """Tells one run from another: design, plan with its seed, and data."""
    return json.dumps([row[name] for name in _IDENTITY], sort_keys=True)


def prepare(options: argparse.Namespace, folder: Path) -> TokenData:
    """The data of the flags of `add_data_arguments`; the tokenizer is kept in `folder`/tokenizer."""
    from merino_net.corpus.data import kept_tokenizer, token_array
    from merino_net.corpus.text import Reading, Text

    reading = Reading.of(options.text_field, options.text_format, options.text_memory)
    text = Text(tuple(options.text), reading=reading)
    tokenizer = kept_tokenizer(text, options.vocabulary, folder / "tokenizer")
    training = token_array(text, tokenizer, Path(options.cache))
    other = Text(tuple(options.held_out_text), reading=reading) if options.held_out_text else None
    separate = None if other is None else token_array(other, tokenizer, Path(options.cache))
    identity = {
        "text_sha256": text.fingerprint(),
        "held_out": options.held_out if other is None else other.fingerprint(),
        "vocabulary": options.vocabulary,
        "tokens": len(training),
    }
    held_out = None if separate is None else str(separate.filename)
    return TokenData(str(training.filename), held_out, options.held_out, tokenizer.eos_token_id, identity)


def plan_of(options: argparse.Namespace, evaluations: int = 5) -> TrainingPlan:
    """The plan of the flags of `add_plan_arguments`, with so many held-out losses and five checkpoints on the way."""
    from merino_net.training.run import TrainingPlan

    return TrainingPlan(
        steps=options.steps,
        batch=options.batch,
        seq_len=options.sequence,
        learning_rate=options.learning_rate,
        optimizer=options.optimizer,
        precision=options.precision,
        log_every=10,
        evaluate_every=_every(options.steps, evaluations),
        save_every=_every(options.steps, 5),
        evaluate_at_most=options.evaluate_at_most,
    )


def _every(steps: int, times: int) -> int:
    return max(10, steps // times // 10 * 10)


def train_run(run: Run) -> Row:
    """Train one design and return its row; this is what a worker does. A run that diverges has a row with its `error`, and no loss.

    Attention is written out ("eager"): on a CPU in bfloat16 the fused one takes up to 1.5 times as long for a step of networks
    and sequences as short as these (measured with PyTorch 2.13).
    """
    import torch

    from merino_net import MerinoConfig
    from merino_net.corpus.data import Sequences, packed, split
    from merino_net.training.allocator import keep_memory
    from merino_net.training.run import Diverged, TrainingPlan, train

    keep_memory()
    torch.set_num_threads(run.threads)
    plan = TrainingPlan(**run.plan)
    rows = packed(np.load(run.data.training, mmap_mode="r"), plan.seq_len)
    if run.data.held_out is None:
        kept, left = split(len(rows), run.data.held_out_share, 0)
        training, held_out = Sequences(rows, kept), Sequences(rows, left)
    else:
        training, held_out = Sequences(rows), Sequences(packed(np.load(run.data.held_out, mmap_mode="r"), plan.seq_len))
    end = run.data.end_of_text
    attention = {} if torch.cuda.is_available() else {"attn_implementation": "eager"}
    config = MerinoConfig.from_architecture(run.architecture, bos_token_id=end, eos_token_id=end, pad_token_id=end, **attention)
    named = {"design": run.label, **run.identity(), "seed": plan.seed, "threads": run.threads, "versions": _versions()}
    try:
        # a row tells no utilisation, so that the peak need not be measured
        result = train(config, training, held_out, plan, run.network, peak_flops_per_s=1.0, progress=False)
    except Diverged as error:
        shutil.rmtree(run.network, ignore_errors=True)
        return {**named, "error": str(error)}
    shutil.rmtree(run.network, ignore_errors=True)
    return {
        **named,
        "held_out_loss": result.held_out_loss,
        "training_loss": result.training_loss,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
    }


def _versions() -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {**provenance(0, ("torch", "transformers", "accelerate"))["versions"], "device": device}


def environments(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The versions and devices that rows were made with, each with its number of `runs`, most first; one that names none counts.

    Rows of several kinds stand on terms that are not quite equal: the order of sums differs, on a GPU the kernels too.
    """
    counts = Counter(json.dumps(row.get("versions", {}), sort_keys=True) for row in rows)
    return [{"runs": count, **json.loads(versions)} for versions, count in counts.most_common()]


def finished(runs: Sequence[Run], file: RowFile, backend: str, scheduler: str | None, jobs: int) -> list[Row]:
    """The rows of `runs`, in their order: those in `file`, and the others as they are trained, appended to it at once.

    A row with an `error` in place of a loss is of a run that diverged; it is not tried again.
    """
    keys = [run_key(run.identity()) for run in runs]
    with Resume(file, keys, key_of=run_key) as resume, ExitStack() as stack:
        left = {key: run for key, run in zip(keys, runs, strict=True) if key not in resume}
        results = stack.enter_context(workers(backend, scheduler, jobs))(train_run, list(left.values())) if left else iter(())
        for row in results:
            resume.add(run_key(row), row)
            tqdm.write(f"{row['design']}, seed {row['seed']}: {_ending(row)}")
        return [resume[key] for key in keys]


def _ending(row: Row) -> str:
    """How a run ended, in a line."""
    return row["error"] if "error" in row else f"held-out loss {row['held_out_loss']:.4f}, {row['tokens_per_s']:,.0f} tokens/s"


@contextmanager
def workers(backend: str, scheduler: str | None, jobs: int) -> Iterator[Callable[[Callable[[Run], Row], list[Run]], Iterator[Row]]]:
    """What maps a function over runs, rows as they come: by `processes` of this machine, or by a Dask cluster.

    A process does one run: one that is killed takes nothing else with it, and its run is started anew, `ATTEMPTS` times in all.
    `dask`: a local cluster of `jobs` workers, which replaces workers that die in the same way, or the one at `scheduler`, whose own
    setting `distributed.scheduler.allowed-failures` says how often a run is started anew.
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

        def by_dask(function: Callable[[Run], Row], runs: list[Run]) -> Iterator[Row]:
            futures = [client.submit(function, run, pure=False) for run in runs]
            return (future.result() for future in as_completed(futures))

        yield by_dask


def _by_processes(function: Callable[[Run], Row], runs: list[Run], jobs: int) -> Iterator[Row]:
    """Rows as they come from `jobs` processes at a time, one for each run."""
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
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
        """Take runs until none is left, each in a process of its own."""
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


def _attempts(function: Callable[[Run], Row], run: Run, started: Callable[[Any], bool], alive: set[Any]) -> Row | BaseException:
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


def _work(sender: Connection, function: Callable[[Run], Row], run: Run) -> None:
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


def add_data_arguments(parser: argparse.ArgumentParser, vocabulary: int) -> None:
    """Flags that say what to train on."""
    from merino_net.corpus.text import add_reading_arguments

    parser.add_argument(
        "--text", nargs="+", default=[], metavar="SOURCE", help="as in merino_net.train (default: Python's documentation)"
    )
    parser.add_argument("--held-out-text", nargs="+", metavar="SOURCE", help="evaluate on this text instead of held-out sequences")
    add_reading_arguments(parser)
    parser.add_argument(
        "--held-out", type=float, default=0.05, metavar="SHARE", help="share of the sequences held out (default: %(default)s)"
    )
    parser.add_argument("--vocabulary", type=int, default=vocabulary, metavar="N", help="tokens (default: %(default)s)")
    parser.add_argument("--cache", default=str(cache_folder()), metavar="FOLDER", help="of the tokens (default: ~/.cache/merino)")


def add_plan_arguments(
    parser: argparse.ArgumentParser,
    *,
    sequence: int,
    steps: int,
    batch: int,
    learning_rate: float,
    optimizer: str,
    evaluate_at_most: int,
) -> None:
    """Flags that say how to train, with a study's own defaults."""
    parser.add_argument(
        "--sequence", type=int, default=sequence, metavar="TOKENS", help="length of a sequence (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=steps, metavar="N", help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=batch, metavar="N", help="sequences per step (default: %(default)s)")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=learning_rate,
        metavar="RATE",
        help="at its highest (default: %(default)s, for networks this small)",
    )
    parser.add_argument(
        "--optimizer",
        choices=("adamw", "muon"),
        default=optimizer,
        help="muon: for the matrices inside, adamw for the rest (default: %(default)s)",
    )
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="number format (default: %(default)s)")
    parser.add_argument(
        "--evaluate-at-most",
        type=int,
        default=evaluate_at_most,
        metavar="N",
        help="held-out sequences evaluated (default: %(default)s)",
    )


def add_worker_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Flags that say who does the work and where it goes."""
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time (default: one per core)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of PyTorch in each run (default: %(default)s)")
    parser.add_argument(
        "--backend", choices=("processes", "dask"), default="processes", help="where runs go (default: processes of this machine)"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that shares the folders of --output and --cache (default: a local one)",
    )
    parser.add_argument("--output", default=output, metavar="DIR", help="folder of the results (default: %(default)s)")


def check_workers(options: argparse.Namespace) -> None:
    """ValueError where a number of `add_worker_arguments` is none."""
    positive_integer("jobs", options.jobs)
    positive_integer("threads", options.threads)


def introduce(data: TokenData, plan: TrainingPlan, runs: Sequence[Run]) -> None:
    """Say what is about to be trained."""
    tokens = data.identity["tokens"]
    designs, seeds = len({run.architecture for run in runs}), len({run.plan["seed"] for run in runs})
    print(
        f"{tokens:,} tokens, {plan.steps:,} steps of {plan.tokens_per_step:,}: {plan.steps * plan.tokens_per_step / tokens:.2g} "
        f"passes; {counted(designs, 'design')}, {counted(seeds, 'seed')}, {counted(len(runs), 'run')}",
        flush=True,
    )


def runs_of(
    candidates: Sequence[Candidate], plan: TrainingPlan, seeds: int, data: TokenData, threads: int, folder: Path
) -> list[Run]:
    """A run of each candidate with each of the seeds 0, 1, …, seed by seed."""
    place = str(folder.resolve() / "runs")
    return [
        Run(one.name, one.architecture, seeded(plan, seed), data, threads, place) for seed in range(seeds) for one in candidates
    ]


def trained(
    candidates: Sequence[Candidate],
    plan: TrainingPlan,
    data: TokenData,
    options: argparse.Namespace,
    folder: Path,
) -> list[Row]:
    """The rows of all candidates with the flags' number of seeds, trained where `folder`/rows.jsonl has none of them yet."""
    runs = runs_of(candidates, plan, options.seeds, data, options.threads, folder)
    introduce(data, plan, runs)
    return finished(runs, RowFile(folder / "rows.jsonl"), options.backend, options.scheduler, options.jobs)


def seeded(plan: TrainingPlan, seed: int) -> dict[str, Any]:
    """A plan with this seed as the record that a run holds."""
    return {**dataclasses.asdict(plan), "seed": seed}
