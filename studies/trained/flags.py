"""The flags that studies of trained networks share, and what they say as records that the options of a study hold."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from formulation.architecture import positive_integer
from formulation.records.files import cache_folder

if TYPE_CHECKING:
    from merino_net.corpus.text import Reading

SMALL_NETWORKS: dict[str, Any] = {
    "sequence": 128,
    "steps": 1000,
    "batch": 8,
    "learning_rate": 4e-3,
    "optimizer": "muon",
    "evaluate_at_most": 1024,
}
"""Defaults of `add_plan_arguments` on which most networks of about a million parameters pass the bigram loss (piloted)."""


@dataclass(frozen=True)
class ReadingOptions:
    """The flags of `merino_net.corpus.text.add_reading_arguments`; ValueError as `Reading` raises it."""

    text_field: str | None
    text_format: str | None
    text_memory: int

    def __post_init__(self) -> None:
        _ = self.reading

    @property
    def reading(self) -> Reading:
        """How texts are read."""
        from merino_net.corpus.text import Reading

        return Reading.of(self.text_field, self.text_format, self.text_memory)


@dataclass(frozen=True)
class DataOptions:
    """The flags of `add_data_arguments`."""

    text: tuple[str, ...]
    held_out_text: tuple[str, ...] | None
    reading_flags: ReadingOptions
    held_out: float
    vocabulary: int
    cache: str


@dataclass(frozen=True)
class PlanOptions:
    """The flags of `add_plan_arguments`."""

    sequence: int
    steps: int
    batch: int
    learning_rate: float
    optimizer: str
    precision: str
    evaluate_at_most: int


@dataclass(frozen=True)
class WorkerOptions:
    """The flags of `add_worker_arguments`; ValueError for fewer than one job or thread."""

    jobs: int
    threads: int
    backend: str
    scheduler: str | None
    output: str

    def __post_init__(self) -> None:
        positive_integer("jobs", self.jobs)
        positive_integer("threads", self.threads)


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
