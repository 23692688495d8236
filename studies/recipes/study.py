"""What each part of the training recipe does to the loss, and how well a learning rate carries from small designs to large ones.

    python -m studies.recipes --text train.txt.xz --held-out-text valid.txt --document-start '^ =.*= $'
    python -m studies.recipes --text books/ --parts changes --seeds 5

The parts:

    changes    two designs of about a million parameters, one that shares its layers and one of the llama family with a shape of its
               own for every layer and grouped heads; each change of the recipe against the same recipe without it
    carry      three widths, four rules for the learning rate, five rates each: where is the best one?

Every network is evaluated twice on the same held-out sequences: documents seeing those before them, and not. Writes rows.jsonl (a
finished run is never run twice), summary.json, changes.png and carry.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from formulation import Architecture, Block
from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import text_table
from formulation.records.files import output_folder, replace_file, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from hardware_models import Params
from studies.trained.flags import DataOptions, add_data_arguments
from studies.trained.plan import TRAINING_PACKAGES, TokenData
from studies.trained.runs import prepare

_VOCABULARY, _SEQUENCE, _BATCH = 2048, 256, 8

DESIGNS: dict[str, Architecture] = {
    "shared": Architecture(
        (Block(128, 256, 2, head_size=32), Block(192, 384, 3, head_size=32)),
        embedding_width=192,
        vocabulary=_VOCABULARY,
        positions=_SEQUENCE,
    ),
    "layers": Architecture(
        (
            Block(192, 384, 1, heads=6, kv_heads=2, head_size=32),
            Block(192, 320, 1, heads=4, kv_heads=1, head_size=32),
            Block(192, 512, 1, heads=6, kv_heads=3, head_size=32),
            Block(192, 640, 1, heads=2, kv_heads=1, head_size=32),
        ),
        family="llama",
        tied=True,
        vocabulary=_VOCABULARY,
        positions=_SEQUENCE,
    ),
}
"""Designs by name: family `merino`, layers shared, heads not grouped; family `llama`, each layer of a shape of its own."""

_MUON: dict[str, Any] = {"optimizer": "muon", "learning_rate": 4e-3}
_ADAMW: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 2e-3}
_BEFORE: dict[str, Any] = {
    "decayed": "all",
    "attention_parts": False,
    "schedule": "linear",
    "documents_apart": False,
    "repeat_exponent": 0.0,
}
"""The recipe before any change, stated in full, so that no default of a plan moves it."""
_CARRIED: dict[str, Any] = {**_BEFORE, "decayed": "matrices", "attention_parts": True}
"""The recipe whose learning rate is carried."""


@dataclass(frozen=True)
class Change:
    """A change of the recipe: the fields of the plan before and after it, the designs that it concerns, and what we expected.

    Attributes:
        loss: the held-out loss that counts, "packed" or "apart".
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    designs: tuple[str, ...]
    expected: str
    loss: str = "packed"


_BOTH = tuple(DESIGNS)
CHANGES: dict[str, Change] = {
    "query, key, value apart": Change(
        _MUON,
        {"attention_parts": True},
        ("shared",),
        "lower by 0.005 to 0.02 nat: one step for three maps lets the largest gradient of the three set the others' directions",
    ),
    "embeddings do not decay, Muon": Change(
        _MUON, {"decayed": "matrices"}, _BOTH, "less than the seeds' spread: so short a run shrinks an embedding by 6 % at most"
    ),
    "stable, then decay": Change(_MUON, {"schedule": "wsd"}, _BOTH, "within 0.01 nat of the linear decay either way"),
    "documents apart": Change(
        _MUON,
        {"documents_apart": True},
        _BOTH,
        "lower by 0.005 to 0.03 nat where documents are read apart; higher where they are not",
        loss="apart",
    ),
    "repeated layers add 1/√L": Change(_MUON, {"repeat_exponent": 0.5}, ("shared",), "lower by up to 0.01 nat"),
    "repeated layers add 1/L": Change(_MUON, {"repeat_exponent": 1.0}, ("shared",), "no lower than with 1/√L"),
    "embeddings do not decay, AdamW": Change(_ADAMW, {"decayed": "matrices"}, _BOTH, "less than the seeds' spread, as with Muon"),
}

CARRY_WIDTHS = (32, 64, 128)
CARRY_RATES = {"muon": (8e-3, 1.6e-2, 3.2e-2, 6.4e-2), "adamw": (1e-3, 2e-3, 4e-3, 8e-3)}
CARRY_RULES: dict[str, dict[str, Any]] = {
    "Muon": {"optimizer": "muon"},
    "Muon, √(w/n)": {"optimizer": "muon", "rate_width": 64},
    "AdamW": {"optimizer": "adamw"},
    "AdamW, w/n": {"optimizer": "adamw", "rate_width": 64},
}
CARRY_EXPECTED = (
    "the best rate falls by √2 (Muon) and by 2 (AdamW) with each doubling of the width; with the factor it stays within a factor "
    "of √2"
)


def carry_design(width: int) -> Architecture:
    """Three layers of the llama family, F = 3E, heads of 32, a tied head."""
    return Architecture(
        (Block(width, 3 * width, 3, head_size=32),),
        shared=False,
        family="llama",
        tied=True,
        vocabulary=_VOCABULARY,
        positions=_SEQUENCE,
    )


@dataclass(frozen=True)
class RecipesOptions:
    """What the study was asked for, see --help; ValueError for a number out of range or a pattern that is none."""

    parts: tuple[str, ...]
    data: DataOptions
    document_start: str | None
    steps: int
    carry_steps: int
    seeds: int
    threads: int
    output: str

    def __post_init__(self) -> None:
        for name in ("steps", "carry_steps"):
            if positive_integer(name, getattr(self, name)) % 10:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected a multiple of 10")
        positive_integer("seeds", self.seeds)
        positive_integer("threads", self.threads)
        if self.document_start is not None:
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise ValueError(f"--document-start is not a regular expression ({error})") from None


@dataclass(frozen=True)
class Recipe:
    """A run: a design and the fields of its plan."""

    design: Architecture
    plan: dict[str, Any]

    def key(self, data: TokenData) -> str:
        """Tells one run from another."""
        return json.dumps([self.design.to_dict(), self.plan, data.identity], sort_keys=True)


def _plan(steps: int, seed: int, **fields: Any) -> dict[str, Any]:
    """The fields of a plan that is evaluated at its end alone."""
    from merino_net.training.run import TrainingPlan

    plan = TrainingPlan(
        steps=steps,
        batch=_BATCH,
        seq_len=_SEQUENCE,
        evaluate_every=steps,
        save_every=steps,
        evaluate_at_most=256,
        seed=seed,
        **fields,
    )
    return dataclasses.asdict(plan)


def change_runs(options: RecipesOptions) -> list[tuple[str, str, str, int, Recipe]]:
    """(change, design, "before" or "after", seed, run) of every comparison, seed by seed; many share their run before."""
    found = []
    for seed in range(options.seeds):
        for name, change in CHANGES.items():
            for design in change.designs:
                fields = {**_BEFORE, **change.before}
                for side, own in (("before", fields), ("after", {**fields, **change.after})):
                    found.append((name, design, side, seed, Recipe(DESIGNS[design], _plan(options.steps, seed, **own))))
    return found


def carry_runs(options: RecipesOptions) -> list[tuple[str, int, float, Recipe]]:
    """(rule, width, learning rate, run) of the sweep, with seed 0."""
    return [
        (name, width, rate, Recipe(carry_design(width), _plan(options.carry_steps, 0, learning_rate=rate, **_CARRIED, **rule)))
        for width in CARRY_WIDTHS
        for name, rule in CARRY_RULES.items()
        for rate in CARRY_RATES[rule["optimizer"]]
    ]


def divided(sources: Sequence[str], start: str | None, options: DataOptions, path: Path) -> tuple[str, ...]:
    """The sources, or one file of their documents divided before each line that matches `start`."""
    from merino_net.corpus.text import END_OF_TEXT, Text

    if start is None:
        return tuple(sources)
    pattern = re.compile(start)

    def documents() -> Iterator[str]:
        for text in Text(tuple(sources), reading=options.reading_flags.reading).documents():
            lines: list[str] = []
            for line in text.split("\n"):
                if lines and pattern.search(line):
                    yield "\n".join(lines)
                    lines = []
                lines.append(line)
            yield "\n".join(lines)

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as file:
        for document in documents():
            file.write(f"{document}\n{END_OF_TEXT}\n".encode())
    return (str(path),)


def train_recipe(recipe: Recipe, data: TokenData, threads: int, folder: Path) -> Row:
    """Train and evaluate a network; its row. One that diverges has an `error` in place of losses."""
    import torch

    from merino_net import MerinoConfig
    from merino_net.corpus.data import Sequences, packed
    from merino_net.training.allocator import keep_memory
    from merino_net.training.run import Diverged, TrainingPlan, train

    keep_memory()
    torch.set_num_threads(threads)
    plan = TrainingPlan(**recipe.plan)
    assert data.held_out is not None
    training, held_out = (Sequences(packed(np.load(path, mmap_mode="r"), plan.seq_len)) for path in (data.training, data.held_out))
    end = data.end_of_text
    config = MerinoConfig.from_architecture(
        recipe.design, bos_token_id=end, eos_token_id=end, pad_token_id=end, attn_implementation="eager"
    )
    row: Row = {
        "architecture": recipe.design.to_dict(),
        "plan": recipe.plan,
        "data": data.identity,
        "threads": threads,
        "versions": provenance(0, TRAINING_PACKAGES)["versions"],
    }
    network = folder / "network"
    shutil.rmtree(network, ignore_errors=True)
    processor = time.process_time()
    try:
        result = train(config, training, held_out, plan, network, peak_flops_per_s=1.0, progress=False)
    except Diverged as error:
        return {**row, "error": str(error)}
    finally:
        row["cpu_seconds"] = time.process_time() - processor
    count = result.held_out_sequences
    losses = {
        name: evaluated_loss(network, sequences, count)
        for name, sequences in (("packed", held_out), ("apart", held_out.documents_apart(end)))
    }
    shutil.rmtree(network)
    return {
        **row,
        "held_out_loss": losses,
        "training_loss": result.training_loss,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
    }


def evaluated_loss(network: Path, sequences: Any, count: int) -> float:
    """Mean loss in nat per token of a trained network in float32 over the first sequences."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(network, attn_implementation="eager").eval()
    losses = []
    with torch.inference_mode():
        for first in range(0, count, _BATCH):
            items = [sequences[number] for number in range(first, min(first + _BATCH, count))]
            batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
            losses += [float(model(**batch, use_cache=False).loss)] * len(items)
    return mean(losses)


def change_records(options: RecipesOptions, rows: Mapping[str, Row], data: TokenData) -> list[dict[str, Any]]:
    """For each change and design: both losses by seed, and the mean difference (after − before) with its standard deviation."""
    records: dict[tuple[str, str], dict[str, Any]] = {}
    for name, design, side, seed, recipe in change_runs(options):
        change = CHANGES[name]
        record = records.setdefault(
            (name, design),
            {
                "change": name,
                "design": design,
                "fields": dict(change.after),
                "optimizer": change.before["optimizer"],
                "loss": change.loss,
                "expected": change.expected,
                "before": {},
                "after": {},
                "others": {"before": {}, "after": {}},
                "tokens_per_s": {"before": [], "after": []},
            },
        )
        row = rows.get(recipe.key(data))
        if row is None:
            continue
        other = "apart" if change.loss == "packed" else "packed"
        record[side][str(seed)] = row["held_out_loss"][change.loss] if "error" not in row else None
        record["others"][side][str(seed)] = row["held_out_loss"][other] if "error" not in row else None
        record["tokens_per_s"][side].append(row.get("tokens_per_s"))
    for record in records.values():
        for where, kept in (("", record), ("other_", record["others"])):
            differences = [
                kept["after"][seed] - loss
                for seed, loss in kept["before"].items()
                if loss is not None and kept["after"].get(seed) is not None
            ]
            record[f"{where}differences"] = differences
            record[f"{where}difference"] = mean(differences) if differences else None
            record[f"{where}difference_sd"] = stdev(differences) if len(differences) > 1 else None
        ended = [loss for loss in record["before"].values() if loss is not None]
        record["seeds_sd"] = stdev(ended) if len(ended) > 1 else None
    return list(records.values())


def carry_records(options: RecipesOptions, rows: Mapping[str, Row], data: TokenData) -> list[dict[str, Any]]:
    """For each rule and width: the loss at each learning rate, and the best one, by `best_rate`."""
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for name, width, rate, recipe in carry_runs(options):
        record = records.setdefault(
            (name, width), {"rule": name, "width": width, "params": Params()(carry_design(width)), "losses": {}}
        )
        row = rows.get(recipe.key(data))
        if row is not None:
            record["losses"][f"{rate:g}"] = None if "error" in row else row["held_out_loss"]["packed"]
    for record in records.values():
        record |= best_rate({float(rate): loss for rate, loss in record["losses"].items()})
    return list(records.values())


def best_rate(losses: Mapping[float, float | None]) -> dict[str, Any]:
    """The learning rate of the lowest loss: of the parabola in its logarithm through the lowest loss and its two neighbours.

    Without a neighbour on either side the optimum is not bracketed, and the best rate is the one that was tried.
    """
    known = sorted((rate, loss) for rate, loss in losses.items() if loss is not None)
    if not known:
        return {"best_rate": None, "best_loss": None, "bracketed": False}
    place = min(range(len(known)), key=lambda number: known[number][1])
    rate, loss = known[place]
    if not 0 < place < len(known) - 1:
        return {"best_rate": rate, "best_loss": loss, "bracketed": False}
    x, y = np.log([one[0] for one in known[place - 1 : place + 2]]), [one[1] for one in known[place - 1 : place + 2]]
    a, b, c = np.polyfit(x - x[1], y, 2)
    return {"best_rate": float(np.exp(x[1] - b / (2 * a))), "best_loss": float(c - b * b / (4 * a)), "bracketed": True}


def changes_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of the changes, for people."""

    def number(value: float | None, form: str = "+.4f") -> str:
        return "-" if value is None else format(value, form)

    lines = [
        (
            record["change"],
            record["design"],
            number(mean(record["before"].values()) if record["before"] and None not in record["before"].values() else None, ".4f"),
            number(record["seeds_sd"], ".4f"),
            number(record["difference"]),
            number(record["difference_sd"], ".4f"),
            number(record["other_difference"]),
        )
        for record in records
    ]
    header = ("change", "design", "loss before", "± seeds", "difference", "±", "read the other way")
    return text_table(header, lines, {0, 1})


def carry_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of the sweep, for people."""
    lines = [
        (
            record["rule"],
            str(record["width"]),
            "-" if record["best_rate"] is None else f"{record['best_rate']:.2g}" + ("" if record["bracketed"] else " (edge)"),
            "-" if record["best_loss"] is None else f"{record['best_loss']:.4f}",
            ", ".join(f"{loss:.3f} at {rate}" for rate, loss in record["losses"].items() if loss is not None),
        )
        for record in records
    ]
    return text_table(("rule", "width", "best rate", "loss there", "losses"), lines, {0, 4})


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(RecipesOptions, command_line(), arguments)
    if not options.data.held_out_text:
        raise ValueError("the study needs a held-out text, whose documents are read in two ways; give --held-out-text")
    folder = output_folder(options.output)
    split = partial(divided, start=options.document_start, options=options.data)
    data = prepare(
        dataclasses.replace(
            options.data,
            text=split(options.data.text, path=folder / "texts" / "training.txt"),
            held_out_text=split(options.data.held_out_text, path=folder / "texts" / "held_out.txt"),
        ),
        folder,
    )
    recipes: list[Recipe] = []
    if "changes" in options.parts:
        recipes += [recipe for *_, recipe in change_runs(options)]
    if "carry" in options.parts:
        recipes += [recipe for *_, recipe in carry_runs(options)]
    file = RowFile(folder / "rows.jsonl")
    with Resume(file, [recipe.key(data) for recipe in recipes], key_of=_key_of) as resume:
        for recipe in recipes:
            if recipe.key(data) not in resume:
                resume.add(recipe.key(data), train_recipe(recipe, data, options.threads, folder))
    rows = {_key_of(row): row for row in file.rows}
    changes, carried = change_records(options, rows, data), carry_records(options, rows, data)
    print(f"{changes_text(changes)}\n\n{carry_text(carried)}")
    write_json(
        folder / "summary.json",
        {
            "changes": changes,
            "carry": {"expected": CARRY_EXPECTED, "records": carried},
            "designs": {name: {**design.to_dict(), "params": Params()(design)} for name, design in DESIGNS.items()},
            "data": data.identity,
            "document_start": options.document_start,
            "steps": options.steps,
            "carry_steps": options.carry_steps,
            "tokens_per_step": _BATCH * _SEQUENCE,
            "provenance": provenance(0, TRAINING_PACKAGES),
        },
    )
    from studies.recipes.figures import draw_carry, draw_changes

    save_figure(draw_changes(changes), folder / "changes.png")
    save_figure(draw_carry(carried), folder / "carry.png")
    return 0


def _key_of(row: Row) -> str:
    return json.dumps([row["architecture"], row["plan"], row["data"]], sort_keys=True)


_PARTS = ("changes", "carry")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="what to run (default: all)")
    add_data_arguments(parser, vocabulary=_VOCABULARY)
    parser.add_argument(
        "--document-start", metavar="REGEX", help="a document begins at each line that matches (default: as the files say)"
    )
    parser.add_argument(
        "--steps", type=int, default=250, metavar="N", help="of 2,048 tokens, of the changes (default: %(default)s)"
    )
    parser.add_argument("--carry-steps", type=int, default=100, metavar="N", help="of the sweep (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the changes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of PyTorch (default: %(default)s)")
    parser.add_argument("--output", default="results/recipes", metavar="DIR", help="folder of the results (default: %(default)s)")
    return parser
