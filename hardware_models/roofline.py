"""Cost models from a datasheet alone: latency by the roofline, energy by operations and bytes, for devices that nobody measured.

What a device's vendor states is a `Datasheet`; a device that was measured has a latency table instead (`hardware_models.latency`).
A roofline is optimistic: it leaves out the start of a computation and the quality of the software. It is a lower bound as long as
no cache keeps weights or activations from one product to the next; good for comparing designs, not for promising milliseconds.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from formulation import Block, Separable
from formulation.architecture import Setting, positive_integer
from formulation.layer import Layer, LinearMap, joint_map, layer_of, surroundings
from hardware_models.datasheet import BYTES, Datasheet
from hardware_models.workload import Workload


class Product(NamedTuple):
    """One matrix product: operations, 2 per multiply-add, and the numbers that it reads and writes, each once."""

    flops: float
    numbers: float


def map_product(own: LinearMap, tokens: int) -> Product:
    """A linear map of `tokens` rows: weights and input are read, output is written."""
    return Product(2 * tokens * own.weights, own.weights + tokens * (own.inputs + own.outputs))


def layer_products(layer: Layer, work: Workload) -> Iterator[Product]:
    """The matrix products of one layer application: each stored matrix, so Q, K and V as one; scores and mixing as one kernel.

    That kernel reads queries, keys and values and writes as many mixed values as there are queries.
    """
    for matrix in layer.matrices:
        yield map_product(matrix, work.tokens)
    moved = 2 * layer.query_width * work.tokens + layer.cache_width * work.batch * work.attended
    yield Product(layer.score_flops(work.tokens, work.attended), moved)


class _Roofline(Separable):
    """A sum over the matrix products of one pass, and over its layer applications."""

    device: Datasheet
    precision: str
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.device, Datasheet):
            raise ValueError(f'the device is {self.device!r}; expected a Datasheet such as datasheet("jetson-nano")')
        self.device.figure("peak_flops", self.precision)
        for name in self.needs:
            self.device.figure(name, self.precision if name == "energy_per_flop" else None)
        _ = self.workload  # wrong sizes are refused here

    @property
    @abstractmethod
    def workload(self) -> Workload:
        """The pass."""

    @abstractmethod
    def _cost(self, product: Product) -> float:
        """What one product costs."""

    @abstractmethod
    def _overhead(self) -> float:
        """What a layer application costs besides its products."""

    def block(self, block: Block, setting: Setting) -> float:
        products = layer_products(layer_of(block, setting), self.workload)
        return block.depth * (math.fsum(map(self._cost, products)) + self._overhead())

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self._cost(map_product(joint_map(left, right), self.workload.tokens))

    def fixed(self, setting: Setting) -> float:
        return self._cost(map_product(surroundings(setting).head, self.workload.kept))


class _Latency(_Roofline):
    """In ms: the slower of arithmetic and transfers, product by product."""

    unit = "ms"
    least = 0.0

    def _cost(self, product: Product) -> float:
        compute_s = product.flops / self.device.figure("peak_flops", self.precision)
        transfer_s = product.numbers * BYTES[self.precision] / self.device.bandwidth
        return 1e3 * max(compute_s, transfer_s)

    def _overhead(self) -> float:
        return 1e3 * self.device.layer_overhead_s


class _Energy(_Roofline):
    """In mJ: what operations and bytes take, and the static power for as long as they last; else the rated power for as long."""

    unit = "mJ"
    least = 0.0

    @property
    def _rated(self) -> bool:
        """Whether the rated power stands in for energies that are not published."""
        return self.device.energy_per_flop is None and self.device.power_w is not None

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Figures of the datasheet."""
        return ("power_w",) if self._rated else ("energy_per_flop", "energy_per_byte", "static_power_w")

    @property
    @abstractmethod
    def latency(self) -> _Latency:
        """The latency of the same pass."""

    @property
    def workload(self) -> Workload:
        """The pass."""
        return self.latency.workload

    def _cost(self, product: Product) -> float:
        if self._rated:
            return self.device.figure("power_w") * self.latency._cost(product)
        computing_j = product.flops * self.device.figure("energy_per_flop", self.precision)
        moving_j = product.numbers * BYTES[self.precision] * self.device.figure("energy_per_byte")
        return 1e3 * (computing_j + moving_j) + self.device.figure("static_power_w") * self.latency._cost(product)

    def _overhead(self) -> float:
        return self.device.figure("power_w" if self._rated else "static_power_w") * self.latency._overhead()


@dataclass(frozen=True)
class PrefillLatency(_Latency):
    """Latency of a query of T tokens [ms], a roofline (Williams, Waterman & Patterson 2009) of every matrix product:

        Σ_i L_i [ Σ_p max(FLOPs_p / peak, bytes_p / bandwidth) + overhead ] + Σ joints + output head, each by the same maximum

    A product reads its weights and its input and writes its output once, in the given precision. Every layer application counts,
    and reads its weights again: sharing them saves memory, no time (no cache is taken to hold a layer). Scores stay inside one
    attention kernel, without causal halving as in `Flops`. Left out: norms, activations, residual additions, biases, look-up of
    the embedding.

    Attributes:
        device: a `Datasheet`.
        seq_len: T, tokens of the query.
        precision: of weights and activations, one of those the datasheet has a peak for.
        batch: sequences at a time.
        logits: "last": the output head sees one token of each sequence; "all": every token.

    Raises:
        ValueError: for a device without such a peak, and for sizes below 1.
    """

    device: Datasheet
    seq_len: int = 128
    precision: str = "float32"
    batch: int = 1
    logits: str = "last"

    name = "prefill latency"

    @property
    def workload(self) -> Workload:
        """The pass."""
        return Workload("prefill", self.seq_len, self.batch, self.logits)


@dataclass(frozen=True)
class DecodeLatency(_Latency):
    """Latency of one more token after `context` in the key-value cache [ms], by the formula of `PrefillLatency`.

    A layer application reads the keys and values of all tokens. For one sequence nearly every product is bound by bandwidth.

    Attributes:
        device: as in `PrefillLatency`.
        precision: as in `PrefillLatency`.
        batch: as in `PrefillLatency`.
        context: tokens in the cache.

    Raises:
        ValueError: as `PrefillLatency` does.
    """

    device: Datasheet
    context: int = 128
    precision: str = "float32"
    batch: int = 1

    name = "decode latency"

    def __post_init__(self) -> None:
        positive_integer("context", self.context)
        super().__post_init__()

    @property
    def workload(self) -> Workload:
        """The pass."""
        return Workload("decode", self.context, self.batch)


@dataclass(frozen=True)
class PrefillEnergy(_Energy):
    """Energy of a query of T tokens [mJ]: e_flop · FLOPs + e_byte · bytes + static power · latency, summed as `PrefillLatency`.

    Of a device whose energies nobody published it is the power that the device is rated for times the latency: as if it drew that
    power while it is as fast as it can be.

    Attributes:
        device: as in `PrefillLatency`.
        seq_len: as in `PrefillLatency`.
        precision: as in `PrefillLatency`.
        batch: as in `PrefillLatency`.
        logits: as in `PrefillLatency`.

    Raises:
        ValueError: as `PrefillLatency` does, and for a datasheet that states neither energies with a static power nor a power.
    """

    device: Datasheet
    seq_len: int = 128
    precision: str = "float32"
    batch: int = 1
    logits: str = "last"

    name = "prefill energy"

    @property
    def latency(self) -> PrefillLatency:
        """The latency of the same pass."""
        return PrefillLatency(self.device, self.seq_len, self.precision, self.batch, self.logits)


@dataclass(frozen=True)
class DecodeEnergy(_Energy):
    """Energy of one more token after `context` in the key-value cache [mJ], by the formula of `PrefillEnergy`.

    Attributes:
        device: as in `DecodeLatency`.
        context: as in `DecodeLatency`.
        precision: as in `DecodeLatency`.
        batch: as in `DecodeLatency`.

    Raises:
        ValueError: as `PrefillEnergy` does.
    """

    device: Datasheet
    context: int = 128
    precision: str = "float32"
    batch: int = 1

    name = "decode energy"

    @property
    def latency(self) -> DecodeLatency:
        """The latency of the same pass."""
        return DecodeLatency(self.device, self.context, self.precision, self.batch)
