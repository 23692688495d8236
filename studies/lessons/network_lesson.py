"""Figures and tables of the training lesson, `notebooks/06_realize_and_train.ipynb`: a small network looked at from inside.

What runs and what is stored, what a loss means, how surprised the network is by each token, and what rounding does to its weights.
The network, its training and its quantization are `merino_net`; what counting achieves is `studies.proxy_correlation.bigram`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn
from transformers import AutoModelForCausalLM

from formulation.command.words import markdown_table
from formulation.records.rows import Row
from merino_net.network.counting import parameter_count, part_bytes
from merino_net.network.modeling_merino import MerinoForCausalLM, MerinoJoint, MerinoLayer
from merino_net.network.quantized_weights import restored, round_to_nearest
from merino_net.quantize import Plan, quantize, write_model
from studies.palette import COLOURS, HATCHES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLUE, _ORANGE, _GREEN, _PINK = COLOURS[:4]
_BATCH = 32
"""Sequences that go through the network at a time."""


# What runs, and what is stored


@dataclass(frozen=True)
class PassStep:
    """One module that a pass runs through.

    Attributes:
        module: its name in the network; a layer that is applied twice is there twice.
        weights: name of the module that holds its weights: another one where they are tied.
        kind: "embedding", "positions", "map", "layer", "norm" or "head".
        parameters: how many the module has.
        inside: width that enters.
        outside: width that leaves.
    """

    module: str
    weights: str
    kind: str
    parameters: int
    inside: int
    outside: int


def passage(model: MerinoForCausalLM) -> tuple[PassStep, ...]:
    """The modules that one pass really runs through, in their order, watched while a token passes."""
    names = {module: name for name, module in model.named_modules()}
    kinds: dict[nn.Module, str] = {model.model.tokens: "embedding", model.model.positions: "positions"}
    kinds |= {model.model.norm: "norm", model.lm_head: "head"}
    kinds |= {module: "map" for module in names if isinstance(module, MerinoJoint)}
    kinds |= {module: "layer" for module in names if isinstance(module, MerinoLayer)}
    holders: dict[int, str] = {}
    steps: list[PassStep] = []

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        holder = holders.setdefault(id(next(module.parameters())), names[module])
        entered, left = inputs[0], output
        widths = (0 if kinds[module] in ("embedding", "positions") else entered.shape[-1], left.shape[-1])
        steps.append(PassStep(names[module], holder, kinds[module], parameter_count(module), *widths))

    hooks = [module.register_forward_hook(watch) for module in kinds]
    try:
        with torch.inference_mode():
            model.eval()(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(steps)


def draw_passage(steps: Sequence[PassStep]) -> Figure:
    """Above, what runs, from left to right; below, what is stored, each once, with lines to where it is used.

    A box is as high as the stream that leaves it is wide; boxes of one look share their weights.
    """
    figure = Figure(figsize=(1.06 * len(steps) + 0.8, 4.3), layout="constrained")
    axis = figure.subplots()
    sizes = [step.inside if step.kind == "head" else step.outside for step in steps]  # the head leaves the stream
    stored = list(dict.fromkeys(step.weights for step in steps))
    layers = [name for name in stored if any(step.weights == name and step.kind == "layer" for step in steps)]
    looks = dict.fromkeys(stored, ("white", ""))
    looks |= {name: (COLOURS[n % 4], HATCHES[n % 4]) for n, name in enumerate(layers)}
    looks |= {step.weights: ("0.8", "") for step in steps if step.kind in ("embedding", "positions")}
    centres: dict[str, float] = {}
    for name in stored:  # a stored module stands under the middle of its uses, but for those tied across the network
        uses = [place for place, step in enumerate(steps) if step.weights == name and step.kind != "head"]
        centres[name] = float(np.mean(uses))
    for place, (step, size) in enumerate(zip(steps, sizes, strict=True)):
        height = size / max(sizes)
        _box(axis, place, 1.6, height, looks[step.weights])
        label = {"positions": "+ positions", "map": f"map\n{step.inside} → {step.outside}"}.get(step.kind, step.kind)
        label = f"layer\nwidth {step.outside}" if step.kind == "layer" else label
        axis.text(place, 1.6 + height / 2 + 0.06, label, ha="center", va="bottom", fontsize=9)
        if place:
            axis.annotate("", (place - 0.36, 1.6), (place - 0.64, 1.6), arrowprops={"arrowstyle": "->", "lw": 1.2})
        axis.plot([centres[step.weights], place], [0.27, 1.6 - height / 2], color="0.5", lw=1, zorder=0)
    for name in stored:
        one = next(step for step in steps if step.weights == name)
        _box(axis, centres[name], 0.12, 0.3, looks[name])
        times = sum(step.weights == name for step in steps)
        text = f"{one.parameters:,}" + (f"\nused {times} times" if times > 1 else "")
        axis.text(centres[name], -0.08, text, ha="center", va="top", fontsize=9)
    axis.text(-0.75, 1.6, "runs", ha="right", va="center", fontsize=11)
    axis.text(-0.75, 0.12, "stored\nparameters", ha="right", va="center", fontsize=11)
    axis.set(xlim=(-1.6, len(steps) - 0.4), ylim=(-0.5, 2.55))
    axis.set_axis_off()
    return figure


def _box(axis: Axes, x: float, y: float, height: float, look: tuple[str, str]) -> None:
    colour, hatch = look
    axis.add_patch(Rectangle((x - 0.33, y - height / 2), 0.66, height, facecolor=colour, hatch=hatch, edgecolor="black", lw=1))


# What a loss means


def draw_learning(rows: Sequence[Row], levels: Mapping[str, float]) -> Figure:
    """Training and held-out loss over the tokens trained on, beside levels to be compared with; perplexity on the right.

    Args:
        rows: of a run's log, as `merino_net.training.run` writes them.
        levels: name -> loss [nat per token].
    """
    trained = [row for row in rows if "loss" in row]
    evaluated = [row for row in rows if "held_out_loss" in row]
    figure = Figure(figsize=(8.2, 4.1), layout="constrained")
    axis = figure.subplots()
    thousand = [row["tokens"] / 1e3 for row in trained]
    axis.plot(thousand, [row["loss"] for row in trained], color="0.6", lw=1.2, label="network, training text")
    tokens, losses = [row["tokens"] / 1e3 for row in evaluated], [row["held_out_loss"] for row in evaluated]
    axis.plot(tokens, losses, "-o", ms=5, color=_BLUE, label="network, held-out text")
    for (name, loss), line, colour in zip(levels.items(), (":", "-.", "--"), (_PINK, _GREEN, _ORANGE), strict=False):
        axis.axhline(loss, color=colour, ls=line, lw=1.8, label=f"{name}: {loss:.2f}")
    axis.set(xlabel="tokens trained on [thousand]", ylabel="loss [nat per token]", xlim=(0, None))
    low, high = axis.get_ylim()
    right = axis.twinx()
    right.set_ylim(low, high)
    ticks = [value for value in (10, 20, 50, 100, 200, 500, 1000) if low <= math.log(value) <= high]
    right.set_yticks(np.log(ticks), list(map(str, ticks)))
    right.set_ylabel("perplexity = exp(loss)")
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.3)
    return figure


def loss_table(losses: Mapping[str, float], tokens: int, text_bytes: int) -> str:
    """Markdown: losses of models of one text with what they mean: perplexity and bits per byte.

    Args:
        losses: name -> nat per token.
        tokens: how many tokens were predicted.
        text_bytes: how many bytes of text (UTF-8) those tokens are.
    """
    rows = [
        [name, f"{loss:.2f}", f"{math.exp(loss):,.0f}", f"{loss * tokens / (math.log(2) * text_bytes):.2f}"]
        for name, loss in losses.items()
    ]
    return markdown_table(["model", "loss [nat per token]", "perplexity", "bits per byte"], rows)


def predicted_bytes(tokenizer: PreTrainedTokenizerBase, rows: np.ndarray) -> int:
    """Bytes of text (UTF-8) that the predicted tokens of some sequences are: all tokens but the first of each row; ends count 0."""
    texts = (str(tokenizer.decode(row[1:], skip_special_tokens=True)) for row in rows)
    return sum(len(text.encode()) for text in texts)


def held_out_loss(model: nn.Module, rows: np.ndarray) -> float:
    """Mean cross-entropy of sequences (n, T) in nat per token; the first token of each is context only."""
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            tokens = torch.from_numpy(rows[start : start + _BATCH].astype(np.int64))
            total += float(model(input_ids=tokens, labels=tokens, use_cache=False).loss) * len(tokens)
    return total / len(rows)


def surprises(model: nn.Module, tokens: Sequence[int]) -> np.ndarray:
    """−log of the probability that the model gave to each token but the first, after those before it [nat], (n − 1,)."""
    model.eval()
    row = torch.tensor([list(tokens)])
    with torch.inference_mode():
        logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").numpy()


def surprise_by_context(model: nn.Module, rows: np.ndarray) -> list[tuple[int, int, float, float]]:
    """Mean surprise of tokens with much and with little before them: (from, to, mean, standard error) of each group.

    Args:
        rows: sequences (n, T). A group holds the tokens with `from` to `to` tokens before them in their sequence: 1, 2 to 3, 4 to
            7, ….

    Means are in nat per token. The standard error takes tokens for independent, which makes it a little too small.
    """
    nats = np.array([surprises(model, row.tolist()) for row in rows])
    groups = []
    first = 1
    while first <= nats.shape[1]:
        last = min(2 * first - 1, nats.shape[1])
        group = nats[:, first - 1 : last]
        groups.append((first, last, float(group.mean()), float(group.std() / math.sqrt(group.size))))
        first = last + 1
    return groups


def draw_surprises(words: Sequence[str], nats: np.ndarray, guessing: float) -> Figure:
    """A bar for each token: how much it surprised the network; their mean is the loss.

    Args:
        words: the tokens as text, the first without a bar.
        nats: the surprises of the others.
        guessing: the surprise of any token for one who guesses.
    """
    figure = Figure(figsize=(max(7.0, 0.27 * len(words) + 1), 3.3), layout="constrained")
    axis = figure.subplots()
    axis.bar(range(1, len(words)), nats, 0.75, color=_BLUE)
    axis.axhline(guessing, color=_PINK, ls=":", lw=1.8, label=f"guessing: {guessing:.2f}")
    axis.axhline(float(nats.mean()), color="black", ls="--", lw=1.2, label=f"mean of these tokens: {nats.mean():.2f}")
    shown = [word.replace("\n", "↵").replace(" ", "␣") for word in words]
    axis.set_xticks(range(len(words)), shown, rotation=90, fontsize=9, family="monospace")
    axis.set(ylabel="surprise [nat]", xlabel="token (␣ a space, ↵ a line end)", xlim=(-0.7, len(words) - 0.3))
    axis.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    return figure


# What rounding does


def draw_rounding(weight: torch.Tensor, bits: Sequence[int], count: int = 32) -> Figure:
    """The first weights of one row of a matrix, and where rounding to the nearest step puts them, a panel for each number of bits.

    Args:
        weight: (columns,), rounded with one scale for the whole row.
        count: how many of the weights are drawn.
    """
    figure = Figure(figsize=(4.6 * len(bits), 3.1), layout="constrained")
    axes = figure.subplots(1, len(bits), sharey=True, squeeze=False)[0]
    place, exact = np.arange(count), weight.numpy()
    for axis, own in zip(axes, bits, strict=True):
        rounded = restored(round_to_nearest(weight[None], own, None))[0].numpy()
        if own < 8:
            for level in np.unique(rounded):
                axis.axhline(level, color="0.85", lw=0.8, zorder=0)
        shown, near = exact[:count], rounded[:count]
        axis.vlines(place, np.minimum(shown, near), np.maximum(shown, near), color=_ORANGE, lw=1.5)
        axis.plot(place, shown, "o", ms=6, mfc="none", mec=_BLUE, label="weight")
        axis.plot(place, near, "x", ms=5, color=_ORANGE, label=f"rounded to {own} bits")
        error = math.sqrt(np.square(rounded - exact).mean() / np.square(exact).mean())
        axis.set_title(f"{own} bits: {2**own} steps, error {100 * error:.2g} % of the weights' size", fontsize=10)
        axis.set_xlabel("column of the row")
        axis.legend(frameon=False, fontsize=9, ncols=2, loc="lower left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low - 0.18 * (high - low), high)
    axes[0].set_ylabel("weight")
    return figure


@dataclass(frozen=True)
class WrittenForm:
    """A network as it was written to disk and read back.

    Attributes:
        file_bytes: of its weights' file.
        weight_bits: bits of a weight, all tensors of the file counted, scales included.
        loss: on held-out sequences [nat per token].
    """

    name: str
    file_bytes: int
    weight_bits: float
    loss: float


def variants(
    model: MerinoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    plans: Mapping[str, Plan | None],
    rows: np.ndarray,
    folder: Path,
) -> tuple[WrittenForm, ...]:
    """The network written as each plan says (None: as it is), read back, and its loss on sequences (n, T).

    Args:
        folder: where each variant gets its own folder.
    """
    made = []
    for number, (name, plan) in enumerate(plans.items()):
        place = folder / f"variant-{number}"
        place.mkdir(parents=True)
        if plan is None:
            model.save_pretrained(place)
        else:
            write_model(model, tokenizer, *quantize(model, plan, tokenizer, None), plan, place)
        again = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        sizes = part_bytes(place)
        stored = sum(size for part, size in sizes.items() if part != "file")
        made.append(WrittenForm(name, sizes["file"], 8 * stored / parameter_count(model), held_out_loss(again, rows)))
    return tuple(made)


def variant_table(made: Sequence[WrittenForm]) -> str:
    """Markdown: size and perplexity of each variant, beside the first."""
    rows = [
        [
            one.name,
            f"{one.file_bytes / 1e3:,.0f}",
            f"{one.weight_bits:.1f}",
            f"{one.loss:.3f}",
            f"{math.exp(one.loss):.1f}",
            f"{math.exp(one.loss - made[0].loss) - 1:+.1%}",
        ]
        for one in made
    ]
    return markdown_table(["weights", "file [kB]", "bits a weight", "loss [nat per token]", "perplexity", "change"], rows)
