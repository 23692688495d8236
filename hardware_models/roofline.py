"""Cost models from a datasheet alone: latency by the roofline, energy by operations and bytes or by power, for unmeasured devices.

What is published of a device is a `Datasheet`; a device that was measured has a latency table instead (`hardware_models.latency`).
By rated figures a roofline is a lower bound, as long as no cache keeps weights or activations from one product to the next: good
for comparing designs, not for promising milliseconds. By what a software achieves it is an estimate, as good as its figures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from formulation import Block, Separable
from formulation.architecture import Setting, positive_integer
from formulation.command.words import short, with_unit
from formulation.layer import Layer, LinearMap, joint_map, layer_of, stored_layers, surroundings
from hardware_models.datasheet import PRECISIONS, Datasheet, Precision, Rates
from hardware_models.workload import Workload

Number = Any
"""A number, or an array of them for many passes at once."""

_MOST_NEW_TOKENS = 1_000_000
"""The most decoding steps of an answer: each is summed, since the slower of arithmetic and transfers may change between them."""


class Product(NamedTuple):
    """One matrix product: operations, 2 per multiply-add, and the numbers that it reads and writes, each once.

    Attributes:
        flops: operations.
        weights: numbers of its stored matrix.
        activations: numbers of its inputs and outputs.
    """

    flops: Number
    weights: int
    activations: Number

    def bytes(self, precision: Precision, weight_bits: float | None = None) -> Number:
        """Bytes that it reads and writes; `weight_bits` in place of those of the precision."""
        bits = precision.weight_bits if weight_bits is None else weight_bits
        return (self.weights * bits + self.activations * precision.activation_bits) / 8


class Stage(NamedTuple):
    """Passes of one kind, one after the other.

    Attributes:
        tokens: that every layer works on in a pass.
        batch: sequences at a time.
        attended: for each pass, the tokens that each token attends to.
        kept: tokens that the output head sees in a pass.
    """

    tokens: int
    batch: int
    attended: range
    kept: int

    @classmethod
    def of(cls, work: Workload, times: int = 1) -> Stage:
        """A pass, and those after it, each of which attends to one token more."""
        return cls(work.tokens, work.batch, range(work.attended, work.attended + times), work.kept)


def map_product(own: LinearMap, tokens: int) -> Product:
    """A linear map of `tokens` rows: weights and input are read, output is written."""
    return Product(2 * tokens * own.weights, own.weights, tokens * (own.inputs + own.outputs))


def attention_product(layer: Layer, stage: Stage) -> Product:
    """Scores and mixing as one kernel, for each pass of a stage (arrays): reads queries, keys and values, writes mixed values."""
    attended = np.array(stage.attended)
    moved = (layer.query_width + layer.value_width) * stage.tokens + layer.cache_width * stage.batch * attended
    return Product(layer.score_flops(stage.tokens, attended), 0, moved)


def layer_kernels(layer: Layer) -> int:
    """Kernels of a layer application: its matrix products, attention, norms, activation, two residual additions."""
    return len(layer.matrices) + 1 + len(layer.norms) + 1 + 2


class _Roofline(Separable):
    """A sum over the matrix products of a few passes, and over their kernels.

    Attributes:
        device: the datasheet.
        precision: of weights and activations.
        software: whose figures are used.
    """

    device: Datasheet
    precision: str
    software: str
    least = 0.0
    revision = 2

    def __post_init__(self) -> None:
        if not isinstance(self.device, Datasheet):
            raise ValueError(f'the device is {self.device!r}; expected a Datasheet such as read_datasheet("jetson-nano")')
        _ = self.rates, self.stages  # what the datasheet does not state, and wrong sizes, are refused here

    @cached_property
    def rates(self) -> Rates:
        """What the latency is computed with."""
        return self.device.rates(self.precision, self.software)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The passes."""
        return tuple(self._stages())

    @abstractmethod
    def _stages(self) -> Iterator[Stage]:
        """The passes; ValueError for wrong sizes."""

    @property
    @abstractmethod
    def passes(self) -> str:
        """The passes in words."""

    @property
    def assumes(self) -> str:
        """The device, the passes, the precision, and whose figures are used."""
        return f"{self.device.name}: {self.passes}, {self.precision}, {self.rates.basis}"

    @abstractmethod
    def _cost(self, product: Product, weight_bits: float | None = None) -> Number:
        """What one product costs, an array for arrays."""

    @abstractmethod
    def _overhead(self, kernels: int) -> float:
        """What kernels cost besides their arithmetic and transfers."""

    def _seconds(self, product: Product, weight_bits: float | None) -> Number:
        """The slower of arithmetic and transfers [s]."""
        moved = product.bytes(PRECISIONS[self.precision], weight_bits)
        return np.maximum(product.flops / self.rates.flops, moved / self.rates.bandwidth)

    def block(self, block: Block, setting: Setting) -> float:
        if not block.depth:
            return 0.0
        layer = layer_of(block, setting)
        bits = PRECISIONS[self.precision].weight_bits if block.bits is None else block.bits
        cache = self.device.cache_bytes
        fits = cache is not None and layer.weights * bits / 8 <= cache.value
        read = stored_layers(block, setting) if fits else block.depth
        total = 0.0
        for stage in self.stages:
            times = len(stage.attended)
            products = [map_product(matrix, stage.tokens) for matrix in layer.matrices]
            applied = sum(self._cost(product, bits) for product in products)
            applied_again = sum(self._cost(product._replace(weights=0), bits) for product in products) if read < block.depth else 0
            total += times * (read * applied + (block.depth - read) * applied_again)
            total += block.depth * float(np.sum(self._cost(attention_product(layer, stage))))
            total += times * block.depth * self._overhead(layer_kernels(layer))
        return float(total)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        own = joint_map(left, right, setting)
        return float(
            sum(
                len(stage.attended)
                * self._once(Product(0, 0, stage.tokens * (left + right)) if own is None else map_product(own, stage.tokens))
                for stage in self.stages
            )
        )

    def fixed(self, setting: Setting) -> float:
        head = surroundings(setting).head
        return float(sum(len(stage.attended) * self._once(map_product(head, stage.kept)) for stage in self.stages))

    def _once(self, product: Product) -> float:
        return float(self._cost(product)) + self._overhead(1)


class _Latency(_Roofline):
    """In ms: the slower of arithmetic and transfers, product by product, and the kernels' overhead."""

    unit = "ms"

    @property
    def doubt(self) -> str:
        """That rated figures are not reached, or how near the achieved ones come to what was measured."""
        return f"{self.name} by a roofline of {self.device.name} {_how_near(self)}"

    def _cost(self, product: Product, weight_bits: float | None = None) -> Number:
        return 1e3 * self._seconds(product, weight_bits)

    def _overhead(self, kernels: int) -> float:
        return 1e3 * self.rates.kernel_overhead_s * kernels


def _how_near(quantity: _Roofline) -> str:
    rates = quantity.rates
    figures = f"{with_unit(short(rates.flops), 'FLOP/s')} and {with_unit(short(rates.bandwidth), 'bytes/s')} {rates.basis}"
    if rates.basis == "as rated":
        return f"with {figures}, which no software reaches"
    note = quantity.device.note(quantity.software)
    return f"with {figures}" + (f" ({note})" if note else "")


class _Energy(_Roofline):
    """In mJ: by energies an operation and a byte with the idle power, where they are published; else power × time."""

    unit = "mJ"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._powers
        if self._by_operations:
            self.device.figure("energy_per_flop", PRECISIONS[self.precision].arithmetic)
            self.device.figure("energy_per_byte")

    @property
    def _by_operations(self) -> bool:
        return self.device.energy_per_flop is not None

    @cached_property
    def _powers(self) -> tuple[float, float]:
        """Power during products, and during the kernels' overhead [W]."""
        device = self.device
        if self._by_operations:
            return device.figure("idle_power_w"), device.figure("idle_power_w")
        full = device.active_power_w or device.rated_power_w
        if full is None:
            raise ValueError(
                f"the datasheet of {device.name} states neither energy_per_flop nor active_power_w nor rated_power_w; "
                "add one to a file of your own, with its source"
            )
        return full.value, full.value if device.idle_power_w is None else device.idle_power_w.value

    @property
    def power(self) -> str:
        """Where the energy comes from, in words."""
        if self._by_operations:
            return "operations, bytes and idle power"
        busy, idle = self._powers
        kind = "active" if self.device.active_power_w is not None else "rated"
        waiting = "" if idle == busy else f", {idle:g} W idle while a kernel starts"
        return f"{busy:g} W {kind} × time{waiting}"

    @property
    def assumes(self) -> str:
        """What the latency assumes, and where the energy comes from."""
        return f"{super().assumes}, {self.power}"

    @property
    def doubt(self) -> str:
        """As of a latency; and that power × time is a latency in other units."""
        near = f"{self.name} by a roofline of {self.device.name} {_how_near(self)}"
        if self._by_operations:
            return near
        return f"{near}; it is {self.power}, so that this budget is one on latency in other units"

    def _cost(self, product: Product, weight_bits: float | None = None) -> Number:
        energy_j = self._powers[0] * self._seconds(product, weight_bits)
        if self._by_operations:
            precision = PRECISIONS[self.precision]
            energy_j = energy_j + product.flops * self.device.figure("energy_per_flop", precision.arithmetic)
            energy_j = energy_j + product.bytes(precision, weight_bits) * self.device.figure("energy_per_byte")
        return 1e3 * energy_j

    def _overhead(self, kernels: int) -> float:
        return 1e3 * self._powers[1] * self.rates.kernel_overhead_s * kernels


@dataclass(frozen=True)
class _Prefill(_Roofline):
    """A query of T tokens at once."""

    device: Datasheet
    seq_len: int = 128
    precision: str = "float32"
    batch: int = 1
    logits: str = "last"
    software: str = ""

    def _stages(self) -> Iterator[Stage]:
        yield Stage.of(self.workload)

    @property
    def workload(self) -> Workload:
        """The pass."""
        return Workload("prefill", self.seq_len, self.batch, self.logits)

    @property
    def passes(self) -> str:
        """The pass in words."""
        return str(self.workload)


@dataclass(frozen=True)
class _Decode(_Roofline):
    """One more token."""

    device: Datasheet
    context: int = 128
    precision: str = "float32"
    batch: int = 1
    software: str = ""

    def _stages(self) -> Iterator[Stage]:
        positive_integer("context", self.context)
        yield Stage.of(self.workload)

    @property
    def workload(self) -> Workload:
        """The pass."""
        return Workload("decode", self.context, self.batch)

    @property
    def passes(self) -> str:
        """The pass in words."""
        return f"decode of a token after {self.context}, batch {self.batch}"


@dataclass(frozen=True)
class _Generation(_Roofline):
    """A query at once, then token by token."""

    device: Datasheet
    prompt: int = 128
    new_tokens: int = 128
    precision: str = "float32"
    batch: int = 1
    software: str = ""

    def _stages(self) -> Iterator[Stage]:
        for name in ("prompt", "new_tokens"):
            positive_integer(name, getattr(self, name))
        if self.new_tokens > _MOST_NEW_TOKENS:
            raise ValueError(f"new_tokens is {self.new_tokens}; expected at most {_MOST_NEW_TOKENS:,}, whose steps are summed")
        yield Stage.of(Workload("prefill", self.prompt, self.batch))
        yield Stage.of(Workload("decode", self.prompt, self.batch), self.new_tokens)

    @property
    def passes(self) -> str:
        """The passes in words."""
        return f"prompt of {self.prompt} tokens, then {self.new_tokens} one by one, batch {self.batch}"


@dataclass(frozen=True)
class PrefillLatency(_Prefill, _Latency):
    """Latency of a query of T tokens [ms], a roofline (Williams, Waterman & Patterson 2009) of every matrix product:

        Σ_i L_i [ Σ_p max(FLOPs_p / (peak · efficiency), bytes_p / bandwidth) + kernels · overhead ]
        + Σ joints + output head, each by the same maximum and one overhead; padding moves its values and multiplies none

    A product reads its weights and its input and writes its output once, in the given precision, its weights in the block's own
    bits where it has some. Every layer application counts and reads its weights again, unless the device states a cache that holds
    the weights of the layer: then applying a shared layer again reads activations alone, and what the cache holds takes no time.
    Scores stay inside one attention kernel, without causal halving as in `Flops`. Kernels are the products, attention, norms,
    activation and residual additions of the layer. Left out: the time of norms, activations, residual additions and biases beyond
    that overhead, and the look-up of the embedding.

    Attributes:
        device: a `Datasheet`.
        seq_len: T, tokens of the query.
        precision: of weights and activations, one of `hardware_models.datasheet.PRECISIONS`; "int4" multiplies in float16.
        batch: sequences at a time.
        logits: "last": the output head sees one token of each sequence; "all": every token.
        software: whose achieved figures are used: "": the datasheet's first, the rated ones where it has none; "rated": those.

    Raises:
        ValueError: for a device without such a peak, a software that its datasheet does not know, and sizes below 1.
    """

    name = "prefill latency"


@dataclass(frozen=True)
class DecodeLatency(_Decode, _Latency):
    """Latency of one more token after `context` in the key-value cache [ms], by the formula of `PrefillLatency`.

    A layer application reads the keys and values of all tokens. For one sequence nearly every product is bound by bandwidth.

    Attributes:
        device: as in `PrefillLatency`.
        context: tokens in the cache.
        precision: as in `PrefillLatency`.
        batch: as in `PrefillLatency`.
        software: as in `PrefillLatency`.

    Raises:
        ValueError: as `PrefillLatency` does.
    """

    name = "decode latency"


@dataclass(frozen=True)
class GenerationLatency(_Generation, _Latency):
    """Latency of an answer [ms]: prefill of a prompt of P tokens with the last logits, then N decoding steps.

        PrefillLatency(P) + Σ_{c = P}^{P+N−1} DecodeLatency(context c)

    The sum over the growing cache is exact.

    Attributes:
        device: as in `PrefillLatency`.
        prompt: P, tokens of the prompt.
        new_tokens: N, tokens that follow.
        precision: as in `PrefillLatency`.
        batch: as in `PrefillLatency`.
        software: as in `PrefillLatency`.

    Raises:
        ValueError: as `PrefillLatency` does.
    """

    name = "generation latency"


@dataclass(frozen=True)
class PrefillEnergy(_Prefill, _Energy):
    """Energy of a query of T tokens [mJ], summed over products p and kernels as `PrefillLatency`:

        e_flop · FLOPs + e_byte · bytes + idle power · latency      where energies an operation and a byte are published, else
        Σ_p active power · time_p + idle power · overhead           with the rated power where no active power is published

    The second form is a latency in other units, but for the share of overhead; the text of the quantity says so.

    Attributes:
        device: as in `PrefillLatency`.
        seq_len: as in `PrefillLatency`.
        precision: as in `PrefillLatency`.
        batch: as in `PrefillLatency`.
        logits: as in `PrefillLatency`.
        software: as in `PrefillLatency`.

    Raises:
        ValueError: as `PrefillLatency` does, and for a datasheet that states neither energies with an idle power nor a power.
    """

    name = "prefill energy"


@dataclass(frozen=True)
class DecodeEnergy(_Decode, _Energy):
    """Energy of one more token after `context` in the key-value cache [mJ], by the formula of `PrefillEnergy`.

    Attributes:
        device: as in `DecodeLatency`.
        context: as in `DecodeLatency`.
        precision: as in `DecodeLatency`.
        batch: as in `DecodeLatency`.
        software: as in `DecodeLatency`.

    Raises:
        ValueError: as `PrefillEnergy` does.
    """

    name = "decode energy"


@dataclass(frozen=True)
class GenerationEnergy(_Generation, _Energy):
    """Energy of an answer [mJ]: of the prefill and of every decoding step, as `GenerationLatency` sums their latencies.

    Attributes:
        device: as in `GenerationLatency`.
        prompt: as in `GenerationLatency`.
        new_tokens: as in `GenerationLatency`.
        precision: as in `GenerationLatency`.
        batch: as in `GenerationLatency`.
        software: as in `GenerationLatency`.

    Raises:
        ValueError: as `PrefillEnergy` does.
    """

    name = "generation energy"
