"""What the calibration fits to: designs whose losses were trained, and the published designs among their equals.

Both are reduced to the separable parts that every setting of the entropy is a formula of, so that thousands of settings cost
seconds. Which setting is best is `studies.calibration`'s.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    BlockwiseEntropy,
    EffectiveEntropy,
    SearchSpace,
    TransformerEntropy,
    paper_space,
    tabulate,
)
from formulation.layer import Layer, layer_of
from formulation.records.reading import read_json
from formulation.records.rows import RowFile
from hardware_models import Flops, Params
from studies.trained.sample import sampled, scaled_space

MEANS: dict[str, type[TransformerEntropy]] = {"network": EffectiveEntropy, "block": BlockwiseEntropy}
"""Whose width the depth is compared with, by the names that a calibration file uses."""


@dataclass(frozen=True)
class EntropySetting:
    """One choice of everything that the paper leaves open. Only the ratio of the two weights matters: α₁ + α₂ = 1."""

    rho: float
    attention: float
    beta: float
    mean: str

    @property
    def entropy(self) -> TransformerEntropy:
        """The objective of this setting."""
        return MEANS[self.mean](rho=self.rho, alpha=(self.attention, 1 - self.attention), beta=self.beta)

    def to_dict(self) -> dict[str, Any]:
        """As a calibration file holds it."""
        return {"rho": self.rho, "alpha": [self.attention, 1 - self.attention], "beta": self.beta, "mean": self.mean}


LEAST = 6
"""Trained designs of a group at least, so that one can fit to some and score others."""
CALIBRATION_FORMAT, CALIBRATION_VERSION = "merino calibration", 1
"""Of a calibration file."""


def fitted_name(corpus: str) -> str:
    """What the entropy is called that was fitted on a corpus, the name of a folder of the proxy study."""
    return f"entropy fitted on {corpus}"


@dataclass(frozen=True)
class FittedEntropies:
    """What a calibration file says.

    Attributes:
        fits: the best setting on each corpus, with the fingerprint of its text.
        nearest: the setting found under which the published designs are nearest to the optimum.
    """

    fits: dict[str, tuple[EntropySetting, str]]
    nearest: EntropySetting

    @property
    def entropies(self) -> dict[str, TransformerEntropy]:
        """All of its entropies, by name."""
        fitted = {fitted_name(corpus): setting.entropy for corpus, (setting, _) in self.fits.items()}
        return {**fitted, "entropy nearest to the published designs": self.nearest.entropy}


def read_calibration(path: Path) -> FittedEntropies:
    """The file that `studies.calibration` writes; ValueError if it is none."""

    def setting(one: Mapping[str, Any]) -> EntropySetting:
        return EntropySetting(one["rho"], one["alpha"][0], one["beta"], one["mean"])

    try:
        record = read_json("calibration", path)
        if (record["format"], record["version"]) != (CALIBRATION_FORMAT, CALIBRATION_VERSION):
            raise ValueError(f"it says {record['format']!r}, version {record['version']!r}")
        fits = {fit["corpus"]: (setting(fit), fit["data"]["text_sha256"]) for fit in record["fits"]}
        return FittedEntropies(fits, setting(record["inverse_optimization"]["nearest"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a calibration ({error}); expected what python -m studies.calibration writes") from None


DEFAULT = EntropySetting(EffectiveEntropy().rho, EffectiveEntropy().alpha[0], EffectiveEntropy().beta, "network")

RHOS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
ATTENTIONS = tuple(number / 10 for number in range(11))
BETAS = (0.0, 1 / 64, 1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 7 / 16, 15 / 32)


def _steps_from_default(setting: EntropySetting) -> int:
    """How many values of the axes lie between a setting and the default, in all."""
    axes = (RHOS, ATTENTIONS, BETAS, tuple(MEANS))
    here, there = dataclasses.astuple(setting), dataclasses.astuple(DEFAULT)
    return sum(abs(axis.index(one) - axis.index(other)) for axis, one, other in zip(axes, here, there, strict=True))


GRID = tuple(
    sorted((EntropySetting(*values) for values in itertools.product(RHOS, ATTENTIONS, BETAS, MEANS)), key=_steps_from_default)
)
"""The settings that are tried, the default first and those near to it before those far away.

From β = 1/2 on the scaled-down space, from 9/16 on the paper's, has designs with γ ≥ 1.
"""


@dataclass(frozen=True)
class Corpus:
    """Trained designs of one text by group, as `studies.proxy_correlation` leaves them.

    Attributes:
        quality: negative held-out loss of each design of each group, (n,); −∞ where training diverged.
    """

    name: str
    data: dict[str, Any]
    groups: dict[str, tuple[Architecture, ...]]
    quality: dict[str, np.ndarray]


def read_corpus(folder: Path) -> Corpus:
    """The corpus in a folder of `studies.proxy_correlation`; ValueError if it holds none, or too few designs were trained."""
    summary, rows = folder / "summary.json", RowFile(folder / "rows.jsonl").rows
    if not summary.is_file() or not rows:
        raise ValueError(f"{folder} has no summary.json and rows.jsonl; expected a folder of python -m studies.proxy_correlation")
    record = json.loads(summary.read_text(encoding="utf-8"))
    try:
        plan, data, study = record["plan"], record["data"], record["sample"]
        space = scaled_space(data["vocabulary"], plan["seq_len"])
        designs = sampled(space, study["designs"], study["stratum"], plan["seq_len"], study["seed"])
        losses = {
            Architecture.from_dict(row["architecture"]): np.inf if "error" in row else row["held_out_loss"]
            for row in rows
            if row["plan"] == plan and row["data"] == data
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{summary} lacks {error}; make it again with python -m studies.proxy_correlation") from None
    groups = {name: tuple(design for design in own if design in losses) for name, own in designs.items()}
    groups = {name: own for name, own in groups.items() if len(own) >= LEAST}
    if not groups:
        raise ValueError(f"{folder} has fewer than {LEAST} trained designs in every group; train more")
    quality = {name: -np.array([losses[design] for design in own]) for name, own in groups.items()}
    return Corpus(folder.name, data, groups, quality)


@lru_cache(maxsize=4096)
def _parts(rho: float, mean: str, designs: tuple[Architecture, ...]) -> np.ndarray:
    """The parts of each design, (P, n)."""
    return np.array([[part(design) for design in designs] for part in MEANS[mean](rho=rho).parts])


def scores(setting: EntropySetting, designs: tuple[Architecture, ...]) -> np.ndarray:
    """The setting's entropy of each design, (n,)."""
    return np.asarray(setting.entropy.formula(_parts(setting.rho, setting.mean, designs)))


@dataclass(frozen=True)
class Equals:
    """A published design, and every design of a space that takes no more FLOPs and parameters than it (our counts).

    To the entropy a design is how many layers it has of each shape; designs that agree in this are one row here.

    Attributes:
        designs: how many there are.
        shapes: the different layers, K of them.
        layers: how many layers of each shape a row's designs have, (m, K).
    """

    name: str
    design: Architecture
    designs: int
    shapes: tuple[Layer, ...]
    layers: np.ndarray


def published_equals(space: SearchSpace | None = None, names: Iterable[str] = PUBLISHED) -> list[Equals]:
    """For each published design its equals, found by enumeration; the design itself is among them."""
    space = paper_space() if space is None else space
    costs = (Flops(), Params())
    table = tabulate(costs, space)
    shapes = tuple(dict.fromkeys(layer_of(block, space) for menu in space.menus for block in space.blocks_of(menu)))
    counts = [_layer_counts(space.blocks_of(menu), space, shapes) for menu in space.menus]
    uppers = {name: [cost(PUBLISHED[name]) * (1 + 1e-12) for cost in costs] for name in names}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in uppers}
    designs = dict.fromkeys(uppers, 0)
    for choices in _chunks(space.iterate_choices(), 100_000):
        values = table.evaluate(choices)
        layers = sum(count[choices[:, block]] for block, count in enumerate(counts))
        for name, upper in uppers.items():
            kept = (values <= np.array(upper)[:, None]).all(axis=0)
            designs[name] += int(kept.sum())
            rows[name].append(np.unique(layers[kept], axis=0))
    return [
        Equals(name, PUBLISHED[name], designs[name], shapes, np.unique(np.concatenate(own), axis=0)) for name, own in rows.items()
    ]


def _layer_counts(blocks: Sequence[Block], around: SearchSpace | Architecture, shapes: Sequence[Layer]) -> np.ndarray:
    """Layers of each shape that each block has, (blocks, K)."""
    counts = np.zeros((len(blocks), len(shapes)), dtype=np.int16)
    for number, block in enumerate(blocks):
        counts[number, shapes.index(layer_of(block, around))] = block.depth
    return counts


def _chunks(choices: Iterator[Sequence[int]], size: int) -> Iterator[np.ndarray]:
    while chunk := list(itertools.islice(choices, size)):
        yield np.array(chunk, dtype=np.intp)


def losses_of_equals(equals: Sequence[Equals], settings: Sequence[EntropySetting]) -> np.ndarray:
    """By how much each published design falls short of the best of its equals, 1 − H/H*, by setting: (settings, designs)."""
    losses = np.empty((len(settings), len(equals)))
    by_parts: dict[tuple[float, str], list[int]] = {}
    for number, setting in enumerate(settings):
        by_parts.setdefault((setting.rho, setting.mean), []).append(number)
    for (rho, mean), numbers in by_parts.items():
        parts = MEANS[mean](rho=rho).parts
        for column, one in enumerate(equals):
            per_layer = np.array([[part.per_layer(layer) for layer in one.shapes] for part in parts])  # type: ignore[attr-defined]
            values, own = per_layer @ one.layers.T, per_layer @ _layer_counts(one.design.blocks, one.design, one.shapes).sum(axis=0)
            for number in numbers:
                entropy = settings[number].entropy
                losses[number, column] = 1 - float(entropy.formula(own)) / float(np.max(entropy.formula(values)))
    return losses
