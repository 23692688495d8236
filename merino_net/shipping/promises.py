"""What a design promises, compared with the network that was really made.

A budget of the design is a limit. What a network shows of itself (its parameters, the bytes of its weights, the FLOPs of a pass) is
measured; of anything else, such as the latency on a device, the value of the design's cost model stands as predicted. Cost models
are not known here: who has them hands promises in that predict more (`studies.ship`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.architecture import Architecture, positive_integer
from formulation.command.exit_code import ExitCode
from formulation.command.words import text_table
from formulation.model_file import in_terms_of
from formulation.records.reading import read_json, versioned
from merino_net.network.counting import forward_flops, parameter_count, part_bytes, stored_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_ROUNDING = 1e-12
"""Relative excess over a limit that is put down to the order of floating-point sums; whole numbers have none."""


@dataclass(frozen=True)
class Made:
    """What a network was found to be.

    Attributes:
        config: its configuration.
        parameters: how many it has, tied and shared ones once.
        weight_bytes: bytes of its weights, as they are stored.
        quantized: whether they are stored in fewer than 32 bits.
    """

    config: PreTrainedConfig
    parameters: int
    weight_bytes: int
    quantized: bool = False

    @classmethod
    def planned(cls, config: PreTrainedConfig) -> Made:
        """The float32 network that a configuration describes; it is built, but takes no memory."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        weights = sum(parameter.nbytes for parameter in model.parameters())
        return cls(config, parameter_count(model), weights)

    @classmethod
    def stored(cls, folder: Path) -> Made:
        """The network in a folder that from_pretrained reads, by what its files hold; ValueError if they cannot be read."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder)
        sizes = part_bytes(folder)
        quantized = getattr(config, "quantization_config", None) is not None
        return cls(config, stored_parameters(folder, config), sum(sizes.values()) - sizes["file"], quantized)

    @property
    def architecture(self) -> Architecture | None:
        """The architecture that it realizes, in a class of ours or of transformers; None for a network of another family."""
        from merino_net.network.plain import architecture_of

        return architecture_of(self.config)

    def in_terms_of(self, design: Architecture) -> Architecture | None:
        """`architecture`, in the family and blocks of a design that it is."""
        return None if self.architecture is None else in_terms_of(design, self.architecture)


@dataclass(frozen=True)
class Outcome:
    """What became of a promise: `value` in `unit`, which should be at most `limit`; None if nothing tells it.

    Attributes:
        measured: whether the network itself shows the value; else a cost model predicts it.
        at_least: whether the value should be at least `limit` instead.
    """

    name: str
    unit: str
    limit: float
    value: float | None
    measured: bool
    at_least: bool = False

    @property
    def exceeds(self) -> bool:
        """Whether the value is known and above the limit, or below one that it should reach."""
        if self.value is None:
            return False
        room = _ROUNDING * abs(self.limit)
        return not (self.value >= self.limit - room if self.at_least else self.value <= self.limit + room)

    @property
    def sign(self) -> str:
        """≤ or ≥, between the value and its limit."""
        return "≥" if self.at_least else "≤"

    @property
    def verdict(self) -> str:
        """within or exceeds, "predicted" behind it where nothing was measured; not known where there is no value."""
        misses = "falls short" if self.at_least else "exceeds"
        word = "not known" if self.value is None else misses if self.exceeds else "within"
        return word if self.measured or self.value is None else f"{word}, predicted"

    def to_dict(self) -> dict[str, Any]:
        """As it is written down beside the network."""
        return {**asdict(self), "verdict": self.verdict}

    def __str__(self) -> str:
        """params is 345,600 parameters, which exceeds the design's budget of 200,000."""
        said = "is" if self.measured or self.value is None else "is predicted to be"
        value = "not known" if self.value is None else f"{_number(self.value)} {self.unit}"
        misses = "falls short of" if self.at_least else "exceeds"
        does = misses if self.exceeds else "is within"
        return f"{self.name} {said} {value}" + (
            "" if self.value is None else f", which {does} the design's budget of {_number(self.limit)}"
        )


@dataclass(frozen=True)
class Promise:
    """A budget of a design: at most `limit`, or at least where `at_least`, in `unit`.

    Attributes:
        measure: what a network shows of it; None for one that cannot.
        predict: what a cost model says of it, where the network cannot; None if it says nothing.
        of_bytes: whether it is about the weights as they are stored, so that every exported form has its own value.
    """

    name: str
    unit: str
    limit: float
    measure: Callable[[Made], float | None]
    predict: Callable[[Made], float | None]
    of_bytes: bool = False
    at_least: bool = False

    def outcome(self, made: Made) -> Outcome:
        """What became of it in a network that was made."""
        measured = self.measure(made)
        value = self.predict(made) if measured is None else measured
        return Outcome(self.name, self.unit, self.limit, value, measured is not None, self.at_least)


def _number(value: float) -> str:
    return f"{value:,.12g}"


def measure_of(budget: dict[str, Any]) -> Callable[[Made], float | None]:
    """How a network shows what a budget of a problem file speaks of: {"quantity": "flops", "seq_len": 1024, ...}.

    weight-memory is that of the stored weights. A budget for fewer than 32 bits speaks of the quantized network, so that one in
    float32 does not show it yet.
    """
    name, bits = budget.get("quantity"), budget.get("bits", 32)
    if name == "params":
        return lambda made: made.parameters
    if name == "flops" and isinstance(budget.get("head"), bool):
        tokens = positive_integer("seq_len", budget.get("seq_len"))
        return lambda made: forward_flops(made.config, tokens, budget["head"])
    if of_bytes(budget):
        return lambda made: made.weight_bytes if made.quantized or bits >= 32 else None
    return lambda made: None


def of_bytes(budget: dict[str, Any]) -> bool:
    """Whether a budget of a problem file is about the weights as they are stored."""
    return budget.get("quantity") == "weight-memory"


def name_of(budget: dict[str, Any], name: str) -> str:
    """What to call a budget whose quantity has `name`: it says in how many bits its weights are to be stored, if not in 32."""
    bits = budget.get("bits", 32)
    return f"{name} in {bits:g} bits" if of_bytes(budget) and bits < 32 else name


def read_promises(path: Path) -> tuple[Promise, ...]:
    """Those of a design file, whose cost models predict what a network of exactly its architecture cannot show.

    None if there is no file, and for an architecture's own JSON file, which has no budgets. Raises ValueError for a damaged one.
    """
    if not path.is_file():
        return ()
    record = read_json("design file", path)
    if not isinstance(record, dict) or record.get("format") != "merino design":
        return ()
    record = versioned(record, "merino design", f"the design in {path}")
    if record.get("architecture") is None:
        return ()
    try:
        design = Architecture.from_dict(record["architecture"])
        budgets, used = record["problem"]["budgets"], record["solution"]["usage"]
        return tuple(_promise(design, *pair) for pair in zip(budgets, used, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the budgets of the design in {path} are damaged ({error}); design again") from None


def _promise(design: Architecture, budget: dict[str, Any], used: dict[str, Any]) -> Promise:
    at_least = "upper" not in budget
    limit, predicted = float(budget["at_least" if at_least else "upper"]), float(used["value"])
    if not math.isfinite(limit) or not math.isfinite(predicted):
        raise ValueError(f"{used['name']} has the value {predicted} and the limit {limit}")

    def predict(made: Made) -> float | None:
        return predicted if made.in_terms_of(design) == design else None

    name = name_of(budget, used["name"])
    return Promise(name, str(used["unit"]), limit, measure_of(budget), predict, of_bytes(budget), at_least)


def differences(design: Architecture, network: Architecture) -> list[str]:
    """In what a network is not the design, a phrase each: vocabulary is 300 and not 50,257."""
    network = in_terms_of(design, network)
    what = {"vocabulary": "vocabulary", "positions": "positions", "embedding_width": "embedding width", "shared": "weight sharing"}
    differing = [
        f"{text} is {_shown(getattr(network, name))} and not {_shown(getattr(design, name))}"
        for name, text in what.items()
        if getattr(network, name) != getattr(design, name)
    ]
    if network.blocks != design.blocks:
        differing.insert(0, f"the blocks are {' '.join(map(str, network.blocks))} and not {' '.join(map(str, design.blocks))}")
    return differing


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, bool) else f"{value:,}"


def table(outcomes: Sequence[Outcome]) -> str:
    """A table for people, a line a promise: what the network has of it, the limit, and whether that is within."""
    lines = [
        (one.name, one.unit, "-" if one.value is None else _number(one.value), f"{one.sign} {_number(one.limit)}", one.verdict)
        for one in outcomes
    ]
    return text_table(("budget of the design", "unit", "network", "limit", ""), lines, {0, 1, 4})


def exit_code(outcomes: Sequence[Outcome]) -> ExitCode:
    """DONE, or BROKEN_PROMISE where a promise is broken, after a sentence on stderr for each that is."""
    broken = [one for one in outcomes if one.exceeds]
    for one in broken:
        print(f"a promise is broken: {one}", file=sys.stderr)
    return ExitCode.BROKEN_PROMISE if broken else ExitCode.DONE
