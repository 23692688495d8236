"""Many small training runs on equal terms: a run as data, what it trains on, the processes or cluster that do the work, its row.

Which designs take part and what their losses mean is each study's own. A run that is on disk is never run again, one that was
stopped goes on from its last checkpoint, and a worker that dies loses its own run only, which is started again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from formulation.command.words import counted
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from studies.trained.flags import DataOptions, PlanOptions, WorkerOptions
from studies.trained.plan import TokenData, TrainingRun, run_key
from studies.trained.processes import workers
from studies.trained.side_by_side import Candidate

if TYPE_CHECKING:
    from merino_net.training.run import TrainingPlan


def prepare(options: DataOptions, folder: Path) -> TokenData:
    """The data of the flags of `add_data_arguments`; the tokenizer is kept in `folder`/tokenizer."""
    from merino_net.corpus.data import kept_tokenizer, token_array
    from merino_net.corpus.text import Text

    reading = options.reading_flags.reading
    text = Text(options.text, reading=reading)
    tokenizer = kept_tokenizer(text, options.vocabulary, folder / "tokenizer")
    training = token_array(text, tokenizer, Path(options.cache))
    other = Text(options.held_out_text, reading=reading) if options.held_out_text else None
    separate = None if other is None else token_array(other, tokenizer, Path(options.cache))
    identity = {
        "text_sha256": text.fingerprint(),
        "held_out": options.held_out if other is None else other.fingerprint(),
        "vocabulary": options.vocabulary,
        "tokens": len(training),
    }
    held_out = None if separate is None else str(separate.filename)
    return TokenData(str(training.filename), held_out, options.held_out, tokenizer.eos_token_id, identity)


def training_plan(options: PlanOptions, evaluations: int = 5) -> TrainingPlan:
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


def train_run(run: TrainingRun) -> Row:
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


def finished(runs: Sequence[TrainingRun], file: RowFile, backend: str, scheduler: str | None, jobs: int) -> list[Row]:
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


def introduce(data: TokenData, plan: TrainingPlan, runs: Sequence[TrainingRun]) -> None:
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
) -> list[TrainingRun]:
    """A run of each candidate with each of the seeds 0, 1, …, seed by seed."""
    place = str(folder.resolve() / "runs")
    return [
        TrainingRun(one.name, one.architecture, seeded(plan, seed), data, threads, place)
        for seed in range(seeds)
        for one in candidates
    ]


def trained(
    candidates: Sequence[Candidate],
    plan: TrainingPlan,
    data: TokenData,
    seeds: int,
    options: WorkerOptions,
    folder: Path,
) -> list[Row]:
    """The rows of all candidates with so many seeds, trained where `folder`/rows.jsonl has none of them yet."""
    runs = runs_of(candidates, plan, seeds, data, options.threads, folder)
    introduce(data, plan, runs)
    return finished(runs, RowFile(folder / "rows.jsonl"), options.backend, options.scheduler, options.jobs)


def seeded(plan: TrainingPlan, seed: int) -> dict[str, Any]:
    """A plan with this seed as the record that a run holds."""
    return {**dataclasses.asdict(plan), "seed": seed}
