"""Does a better design train better? Several designs of one FLOPs budget, trained on equal tokens with equal seeds.

    python -m studies.train_compare --text train.txt.xz --held-out-text valid.txt
    python -m studies.train_compare --published MeRino-61M --scale 2 --steps 2000 --seeds 5 --jobs 4
    python -m studies.train_compare --text books/ --backend dask --scheduler tcp://head:8786

The designs: the proven optimum of the (scaled) paper space, the published MeRino whose FLOPs are the budget, a uniform
GPT-2-like design, and the design with most parameters. Widths are divided by `--scale`, so that a machine without a GPU can
train them. Every run is a task of joblib: on the cores of this machine, or on a Dask cluster that shares the folders of
`--output` and `--cache`.
Writes rows.jsonl (a finished run is never run twice, one that was stopped goes on), summary.json and train_compare.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import joblib
import numpy as np
from tqdm import tqdm

from formulation import PUBLISHED, Architecture, Block, Budget, DesignProblem, EffectiveEntropy, SearchSpace, paper_space
from formulation.architecture import HEAD_SIZE, positive_integer
from formulation.files import cache_folder
from formulation.report import counted, output_folder, provenance, run_command, save_figure, text_table, write_json
from formulation.rows import Row, RowFile
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Limits, Status, solve
from studies.quantities import chosen

OPTIMUM, PUBLISHED_DESIGN, UNIFORM, MOST_PARAMETERS = "proven optimum", "published", "uniform", "most parameters"
_GPT2_SHAPE = 768 / 12
"""Width by depth of GPT-2."""
_DEEPEST = 48
"""Layers of the uniform design at most: GPT-2's largest has as many."""


@dataclass(frozen=True)
class Candidate:
    """A design that takes part, and the name under which it does."""

    name: str
    architecture: Architecture


@dataclass(frozen=True)
class Task:
    """One run: all that a worker, perhaps on another machine, needs to know."""

    candidate: Candidate
    plan: dict[str, Any]
    data: dict[str, Any]
    training: str
    held_out: str | None
    held_out_share: float
    end_of_text: int
    threads: int
    folder: str

    def identity(self) -> Row:
        """What a finished row of this run holds of it."""
        return {
            "design": self.candidate.name,
            "architecture": self.candidate.architecture.to_dict(),
            "plan": self.plan,
            "data": self.data,
        }


def scaled(architecture: Architecture, scale: int, vocabulary: int, positions: int) -> Architecture:
    """The design with its widths divided by `scale`, rounded to whole attention heads (up at the middle)."""
    blocks = tuple(
        Block(width := _scaled(block.width, scale), round(width * block.ffn_ratio), block.depth) for block in architecture.blocks
    )
    outside = _scaled(architecture.embedding_width, scale)
    return dataclasses.replace(architecture, blocks=blocks, embedding_width=outside, vocabulary=vocabulary, positions=positions)


def _scaled(width: int, scale: int) -> int:
    return max(1, (2 * width + scale * HEAD_SIZE) // (2 * scale * HEAD_SIZE)) * HEAD_SIZE


def problem_of(published: Architecture, scale: int, vocabulary: int, seq_len: int) -> tuple[DesignProblem, Architecture]:
    """The scaled paper space under the FLOPs of the scaled published design at `seq_len` tokens; and that design."""
    small = scaled(published, scale, vocabulary, seq_len)
    menu = paper_space().menus[0]
    space = SearchSpace.uniform(
        len(published.blocks),
        sorted({_scaled(width, scale) for width in menu.widths}),
        menu.ffn_ratios,
        menu.depths,
        embedding_width=small.embedding_width,
        vocabulary=vocabulary,
        positions=seq_len,
    )
    flops = Flops(seq_len)
    return DesignProblem(space, EffectiveEntropy(), (Budget(flops, flops(small)),), (flops, Params())), small


def uniform_design(problem: DesignProblem) -> Architecture:
    """GPT-2's shape with the FLOPs of the budget: equal layers that share nothing, 4E ≤ F < 8E.

    Of the widths and depths that take at least 90 % of the budget, those whose quotient is nearest to GPT-2's (768/12); F then
    grows in steps of 64 as far as the budget allows. ValueError where there is none.
    """
    budget, space = problem.subject_to[0], problem.space
    widest = 2 * max(width for menu in space.menus for width in menu.widths)

    def design(width: int, ffn_width: int, depth: int) -> Architecture:
        block = Block(width, ffn_width, depth)
        return Architecture((block,), False, space.embedding_width, space.vocabulary, space.positions)

    shapes = [
        (width, depth)
        for width in range(HEAD_SIZE, widest + 1, HEAD_SIZE)
        for depth in range(1, _DEEPEST + 1)
        if 0.9 * budget.upper <= budget.quantity(design(width, 4 * width, depth)) <= budget.upper
    ]
    if not shapes:
        raise ValueError(
            f"no uniform design comes within 10 % of {budget.upper:,.0f} FLOPs; choose another published design or scale"
        )
    width, depth = min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1] / _GPT2_SHAPE)))
    ffn_widths = range(4 * width, 8 * width, HEAD_SIZE)
    fitting = [f for f in ffn_widths if budget.quantity(design(width, f, depth)) <= budget.upper]
    return design(width, fitting[-1], depth)


def candidates(published: str, scale: int, vocabulary: int, seq_len: int) -> tuple[DesignProblem, list[Candidate]]:
    """The problem and the designs that take part, a design that two names share but once. ValueError without a proof."""
    problem, small = problem_of(chosen("published design", published, PUBLISHED), scale, vocabulary, seq_len)
    designs = [
        (OPTIMUM, _proved(problem)),
        (f"{PUBLISHED_DESIGN} {published}" + (f" / {scale}" if scale > 1 else ""), small),
        (UNIFORM, uniform_design(problem)),
        (MOST_PARAMETERS, _proved(dataclasses.replace(problem, maximize=Params()))),
    ]
    distinct: dict[Architecture, str] = {}
    for name, design in designs:
        distinct[design] = f"{distinct[design]}, {name}" if design in distinct else name
    return problem, [Candidate(name, design) for design, name in distinct.items()]


def _proved(problem: DesignProblem) -> Architecture:
    solution = solve(problem, DynamicProgramming(), Limits(seconds=60))
    if solution.status is not Status.OPTIMAL or solution.architecture is None:
        raise ValueError(f"no optimum was proved in {solution.seconds:.0f} s ({solution.status.value}); choose a larger --scale")
    return solution.architecture


def run_task(task: Task) -> Row:
    """Train one design and return its row; this is what a worker does."""
    import torch

    from merino_net import MerinoConfig
    from merino_net.allocator import keep_memory
    from merino_net.data import Sequences, packed, split
    from merino_net.training import TrainingPlan, train

    keep_memory()
    torch.set_num_threads(task.threads)
    plan = TrainingPlan(**task.plan)
    rows = packed(np.load(task.training, mmap_mode="r"), plan.seq_len)
    if task.held_out is None:
        kept, left = split(len(rows), task.held_out_share, 0)
        training, held_out = Sequences(rows, kept), Sequences(rows, left)
    else:
        training, held_out = Sequences(rows), Sequences(packed(np.load(task.held_out, mmap_mode="r"), plan.seq_len))
    end = task.end_of_text
    config = MerinoConfig.from_architecture(task.candidate.architecture, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    folder = Path(task.folder) / hashlib.sha256(_key(task.identity()).encode()).hexdigest()[:16]
    result = train(config, training, held_out, plan, folder, progress=False)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {
        **task.identity(),
        "seed": plan.seed,
        "held_out_loss": result.held_out_loss,
        "training_loss": result.training_loss,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
        "threads": task.threads,
    }


@contextmanager
def workers(backend: str, scheduler: str | None, jobs: int) -> Iterator[joblib.Parallel]:
    """joblib's pool: `loky` processes on this machine, or a Dask cluster (the one at `scheduler`, or a local one)."""
    if backend != "dask":
        yield joblib.Parallel(n_jobs=jobs, backend=backend, return_as="generator_unordered")
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ImportError("the backend dask needs the package distributed; install it with: pip install distributed") from None
    with ExitStack() as stack:
        if scheduler is None:
            local = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            scheduler = stack.enter_context(local).scheduler_address
        stack.enter_context(Client(scheduler, set_as_default=True))
        stack.enter_context(joblib.parallel_config(backend="dask"))
        yield joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")


def summary_of(problem: DesignProblem, designs: Sequence[Candidate], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A record for each design: its costs, its mean held-out loss with the spread over seeds, its difference to the first design.

    loss            mean over seeds, nat per token; `loss_sd` the standard deviation (None with one seed)
    difference      mean over the seeds that both have of loss − loss of the first design; `difference_sd` likewise
    """
    losses: dict[str, dict[int, float]] = {design.name: {} for design in designs}
    for row in rows:
        losses[row["design"]][row["seed"]] = row["held_out_loss"]
    first = losses[designs[0].name]
    records = []
    for design in designs:
        own = losses[design.name]
        differences = [loss - first[seed] for seed, loss in own.items() if seed in first]
        records.append(
            {
                "design": design.name,
                "blocks": str(design.architecture),
                "entropy": problem.maximize(design.architecture),
                "flops": problem.subject_to[0].quantity(design.architecture),
                "params": Params()(design.architecture),
                "seeds": sorted(own),
                "loss": mean(own.values()),
                "loss_sd": _spread(list(own.values())),
                "perplexity": float(np.exp(mean(own.values()))),
                "difference": mean(differences),
                "difference_sd": _spread(differences),
            }
        )
    return records


def _spread(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def table_text(records: Sequence[dict[str, Any]]) -> str:
    """The summary for people."""

    def with_spread(value: float, spread: float | None, form: str) -> str:
        return format(value, form) + ("" if spread is None else f" ± {spread:.4f}")

    header = ("design", "blocks", "entropy", "GFLOPs", "M params", "held-out loss", "perplexity", "loss − first")
    lines = [
        (
            record["design"],
            record["blocks"],
            f"{record['entropy']:,.0f}",
            f"{record['flops'] / 1e9:.3f}",
            f"{record['params'] / 1e6:.3f}",
            with_spread(record["loss"], record["loss_sd"], ".4f"),
            f"{record['perplexity']:.2f}",
            with_spread(record["difference"], record["difference_sd"], "+.4f"),
        )
        for record in records
    ]
    return text_table(header, lines, left={0, 1})


def figure_of(records: Sequence[dict[str, Any]], rows: Sequence[Row]) -> Any:
    """Held-out loss of every run, a line of dots for each design, the mean as a bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.7 * len(records)), layout="constrained")
    axes = figure.add_subplot()
    for place, record in enumerate(records):
        own = [row["held_out_loss"] for row in rows if row["design"] == record["design"]]
        axes.plot(own, [place] * len(own), "o", color="#0072B2", alpha=0.6, label="one seed" if place == 0 else None)
        axes.plot([record["loss"]] * 2, [place - 0.25, place + 0.25], color="black", label="mean" if place == 0 else None)
    axes.set_yticks(
        range(len(records)),
        [f"{r['design']}\n{r['params'] / 1e6:.2f} M parameters, {r['flops'] / 1e9:.2f} GFLOPs" for r in records],
    )
    axes.invert_yaxis()
    axes.set_xlabel("held-out loss after equal tokens [nat per token]")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    return figure


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parser().parse_args(arguments)
    positive_integer("scale", options.scale)
    positive_integer("seeds", options.seeds)
    positive_integer("jobs", options.jobs)
    positive_integer("threads", options.threads)
    problem, designs = candidates(options.published, options.scale, options.vocabulary, options.sequence)
    folder = output_folder(options.output)

    from merino_net.data import kept_tokenizer, token_array
    from merino_net.text import Text
    from merino_net.training import TrainingPlan

    plan = TrainingPlan(
        steps=options.steps,
        batch=options.batch,
        seq_len=options.sequence,
        learning_rate=options.learning_rate,
        precision=options.precision,
        log_every=10,
        evaluate_every=max(10, options.steps // 50 * 10),
        save_every=max(10, options.steps // 50 * 10),
        evaluate_at_most=options.evaluate_at_most,
    )
    text = Text(tuple(options.text))
    tokenizer = kept_tokenizer(text, options.vocabulary, folder / "tokenizer")
    training = token_array(text, tokenizer, Path(options.cache))
    other = Text(tuple(options.held_out_text)) if options.held_out_text else None
    separate = None if other is None else token_array(other, tokenizer, Path(options.cache))
    print(
        f"{len(training):,} tokens, {plan.steps:,} steps of {plan.tokens_per_step:,}: "
        f"{plan.steps * plan.tokens_per_step / len(training):.2g} passes; {len(designs)} designs, {counted(options.seeds, 'seed')}"
    )
    file = RowFile(folder / "rows.jsonl")
    data = {
        "text_sha256": text.fingerprint(),
        "held_out": options.held_out if other is None else other.fingerprint(),
        "vocabulary": options.vocabulary,
        "tokens": len(training),
    }
    tasks = [
        Task(
            candidate=design,
            plan={**dataclasses.asdict(plan), "seed": seed},
            data=data,
            training=str(training.filename),
            held_out=None if separate is None else str(separate.filename),
            held_out_share=options.held_out,
            end_of_text=tokenizer.eos_token_id,
            threads=options.threads,
            folder=str(folder.resolve() / "runs"),
        )
        for seed in range(options.seeds)
        for design in designs
    ]
    rows = {_key(row): row for row in file.rows}
    left = [task for task in tasks if _key(task.identity()) not in rows]
    with workers(options.backend, options.scheduler, options.jobs) as pool:
        runs = pool(joblib.delayed(run_task)(task) for task in left)
        for row in tqdm(runs, total=len(tasks), initial=len(tasks) - len(left), unit="run", disable=None):
            rows[_key(row)] = row
            file.append(row)
            speed = f"{row['tokens_per_s']:,.0f} tokens/s"
            tqdm.write(f"{row['design']}, seed {row['seed']}: held-out loss {row['held_out_loss']:.4f}, {speed}")
    wanted = [rows[_key(task.identity())] for task in tasks]
    records = summary_of(problem, designs, wanted)
    print(table_text(records))
    save_figure(figure_of(records, wanted), folder / "train_compare.png")
    write_json(
        folder / "summary.json",
        {
            "budget": f"FLOPs of {options.published} with widths / {options.scale}, {options.sequence} tokens, head left out",
            "budget_flops": problem.subject_to[0].upper,
            "data": data,
            "plan": dataclasses.asdict(plan),
            "designs": records,
            "provenance": provenance(0, ("numpy", "torch", "transformers", "accelerate", "tokenizers", "joblib")),
        },
    )
    return 0


def _key(row: Row) -> str:
    """Tells one run from another: design, plan with its seed, and data."""
    return json.dumps([row[name] for name in ("design", "architecture", "plan", "data")], sort_keys=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.train_compare",
        description="Train several designs of one FLOPs budget on equal tokens with equal seeds.",
    )
    parser.add_argument(
        "--published", default="MeRino-52M", help="the published design whose FLOPs are the budget (default: %(default)s)"
    )
    parser.add_argument("--scale", type=int, default=4, help="divide all widths by this (default: %(default)s)")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="SOURCE", help="as in merino_net.train (default: Python's documentation)"
    )
    parser.add_argument("--held-out-text", nargs="+", metavar="SOURCE", help="evaluate on this text instead of held-out sequences")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the sequences held out (default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens (default: %(default)s)")
    parser.add_argument("--sequence", type=int, default=256, help="tokens per sequence (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=360, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="sequences per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="(default: %(default)s, for networks this small)")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--evaluate-at-most", type=int, default=512, help="held-out sequences evaluated (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: one per core)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch in each run (default: %(default)s)")
    parser.add_argument("--backend", choices=("loky", "dask"), default="loky", help="where runs go (default: loky, processes here)")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that shares the folders of --output and --cache (default: a local one)",
    )
    parser.add_argument("--cache", default=str(cache_folder()), metavar="FOLDER", help="of the tokens (default: ~/.cache/merino)")
    parser.add_argument("--output", default="results/train_compare", help="folder of the results (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_command(main)
