"""Cost models: bytes that a network takes when it runs: its weights, its key-value cache, its peak of activations, their sum.

The formulas follow the tensors that `merino_net.network.modeling_merino` holds at the same time under PyTorch; tests compare them
with what PyTorch allocates. What a device's runtime takes for itself (libraries, CUDA context, workspaces) is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from formulation import Block, Combine, Composite, Separable
from formulation.architecture import Setting, positive_integer, positive_number
from formulation.layer import Layer, final_norm, layer_of, learned_positions, stored_layers, surroundings
from hardware_models.params import Params
from hardware_models.workload import LOGITS

ATTENTION = ("fused", "eager")


@dataclass(frozen=True)
class WeightMemory(Separable):
    """Memory of the weights [bytes]: `Params` × bits / 8, shared weights once.

    Attributes:
        bits: bits a weight, biases and norms included, unless a block states its own; fractional where scales are spread over
            groups (4 + 16/32 = 4.5).
        embedding_bits: bits a weight of the token embedding, the head tied with it, and the positions; None: `bits`. A head of its
            own has `bits`, as other maps.
        apart: True: layers that share weights are stored as often as they are applied, as llama.cpp does; None: once.

    Raises:
        ValueError: for bits that are not a finite number above 0.
    """

    bits: float = 32
    embedding_bits: float | None = None
    apart: bool | None = None

    name = "weight memory"
    unit = "bytes"
    least = 0.0
    revision = 2

    def __post_init__(self) -> None:
        positive_number("bits", self.bits)
        if self.embedding_bits is not None:
            positive_number("embedding_bits", self.embedding_bits)

    @property
    def _embedding_bits(self) -> float:
        return self.bits if self.embedding_bits is None else self.embedding_bits

    def block(self, block: Block, setting: Setting) -> float:
        layers = block.depth if self.apart else stored_layers(block, setting)
        return layers * layer_of(block, setting).parameters * (self.bits if block.bits is None else block.bits) / 8

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return Params().joint(left, right, setting) * self.bits / 8

    def fixed(self, setting: Setting) -> float:
        around = surroundings(setting)
        head = around.parameters - around.tokens.parameters
        return (around.tokens.parameters * self._embedding_bits + head * self.bits) / 8

    def entry(self, width: int, setting: Setting) -> float:
        return Params().entry(width, setting) * self._embedding_bits / 8

    def exit(self, width: int, setting: Setting) -> float:
        return Params().exit(width, setting) * self.bits / 8


@dataclass(frozen=True)
class CacheMemory(Separable):
    """Memory of the key-value cache after T tokens of B sequences [bytes]: Σ_i L_i · k_i·(d_i + d'_i) · B·T · bits / 8.

    Every application of a layer has its own keys and values: sharing weights saves none.

    Attributes:
        seq_len: T, tokens in the cache.
        batch: B, sequences.
        bits: bits a number of the cache.

    Raises:
        ValueError: for sizes below 1 and bits that are not a finite number above 0.
    """

    seq_len: int = 128
    batch: int = 1
    bits: float = 32

    name = "cache memory"
    unit = "bytes"
    least = 0.0

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch"):
            object.__setattr__(self, name, positive_integer(name, getattr(self, name)))
        positive_number("bits", self.bits)

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * layer_of(block, setting).cache_width * self.batch * self.seq_len * self.bits / 8


@dataclass(frozen=True)
class ActivationMemory(Separable):
    """Peak memory of activations in one forward pass without gradients and without a cache [bytes], the maximum of

        8T + b·M·(2 + 1/B)·E_1             positions: what the embedding hands on, the rows of the table, their sum
        8T + b·M·(e·E + a)                 in a block
        8T + b·M·(left + right)            in a joint
        8T + b·M·(2E_N + 2)                final norm: its input, output and statistics
        b·(M·E₀ + K·V)                     output head: hidden states and logits

    with T tokens, B sequences, M = B·T, b = bits/8, K = M for all logits, B for the last ones; 8T are the integer positions. e = 2
    (the block's input and the layer's), 1 where L = 1; where L = 0 there is E alone. Inside a layer, per token,

        fused  a = max(Q + v + E, 3E + G)
        eager  a = max(Q + R + c(q + q_R) + s, Q + R + p, Q + R + v + c_R·v + 2s, Q + (1 + t)v + E + s, 3E + G + s) + T

    Q: norm, queries, keys and values; q = h·d: queries; v = h·d': mixed values; E: the output map's; then 3E: that output, the
    stream and its norm, and G = max(2F, E + F): the FFN before and after its activation, or after it and with the last map's
    output; max(3F, E + F) where it is gated. R = q + v: keys and values once more for each query head, 0 where k = h or 1. s = h·T:
    one set of attention weights; p = 2s: scores and weights in the softmax, (1 + 8/b)s where b ≠ 4, since it runs in 32 bits; T:
    the mask. c, t: what is copied into order, t = 1 where h > 1 and T > 1, c = 1 where B > 1 besides, else 0; q_R and c_R are q and
    c where R = 0, else 0: what was repeated is in order.

    Source: the tensors that `merino_net.network.modeling_merino` keeps alive at each step; what PyTorch 2.13 allocates on a CPU in
    32 bits, to the byte. Left out: the input tokens, work space that attention and matrix products take inside (some 100 kB a
    thread on a CPU), what an allocator rounds up. Two cases are estimates: where values have a head size of their own PyTorch has
    no fused kernel, and fused attention counts as eager with 2q besides, from above; and other families count by the same rules,
    without what rotary positions and norms of heads take for a moment.

    Attributes:
        seq_len: T, tokens of the query.
        batch: B, sequences.
        bits: bits an activation.
        logits: "last": the head sees one token of each sequence; "all": every token.
        attention: "fused": scores stay inside one kernel (scaled_dot_product_attention); "eager": they are written out.

    Raises:
        ValueError: for any other logits and attention, sizes below 1, bits that are not a finite number above 0.
    """

    seq_len: int = 128
    batch: int = 1
    bits: float = 32
    logits: str = "last"
    attention: str = "fused"

    name = "activation memory"
    unit = "bytes"
    least = 0.0
    revision = 2
    combine = Combine.MAX

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch"):
            object.__setattr__(self, name, positive_integer(name, getattr(self, name)))
        positive_number("bits", self.bits)
        for name, known in (("logits", LOGITS), ("attention", ATTENTION)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(known)}")

    def _in_the_stack(self, per_token: float) -> float:
        """Bytes while the stack of blocks runs and holds so many numbers a token."""
        mask = self.seq_len if self.attention == "eager" else 0
        return 8 * self.seq_len + self.bits / 8 * self.batch * self.seq_len * (per_token + mask)

    def _layer(self, layer: Layer) -> float:
        """Numbers a token that a layer makes: a, the mask left out."""
        width, inside = layer.width, layer.ffn_width
        entered, mixed = width + layer.query_width + layer.cache_width, layer.value_width
        ffn = 3 * width + max((3 if layer.gated else 2) * inside, inside + width)
        if self.attention == "fused" and layer.head_size == layer.value_head_size:
            return max(entered + mixed + width, ffn)
        grouped = 1 < layer.kv_heads < layer.heads
        attended = entered + (layer.query_width + mixed if grouped else 0)
        if self.attention == "fused":
            attended += 2 * layer.query_width + self.seq_len
        weights = layer.heads * self.seq_len
        copied = layer.heads > 1 and self.seq_len > 1
        split = copied and self.batch > 1
        return max(
            attended + split * (1 if grouped else 2) * layer.query_width + weights,
            attended + weights * (2 if self.bits == 32 else 1 + 64 / self.bits),
            attended + (1 + (split and not grouped)) * mixed + 2 * weights,
            entered + (1 + copied) * mixed + width + weights,
            ffn + weights,
        )

    def block(self, block: Block, setting: Setting) -> float:
        layer = layer_of(block, setting)
        if not block.depth:
            return self._in_the_stack(layer.width)
        entered = (1 if block.depth == 1 else 2) * layer.width
        return self._in_the_stack(entered + self._layer(layer))

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self._in_the_stack(left + right)

    def fixed(self, setting: Setting) -> float:
        head = surroundings(setting).head
        tokens = self.batch * self.seq_len
        kept = tokens if self.logits == "all" else self.batch
        return self.bits / 8 * (tokens * head.inputs + kept * head.outputs)

    def entry(self, width: int, setting: Setting) -> float:
        positions = learned_positions(width, setting)
        return 0 if positions is None else self._in_the_stack((2 + 1 / self.batch) * positions.width)

    def exit(self, width: int, setting: Setting) -> float:
        norm = final_norm(width, setting)
        return 0 if norm is None else self._in_the_stack(2 * norm.width + 2)


@dataclass(frozen=True)
class _Held(Separable):
    """What stays in memory between passes [bytes]: weights and cache."""

    weights: WeightMemory
    cache: CacheMemory

    name = "weights and cache"
    unit = "bytes"
    least = 0.0
    revision = 2

    def block(self, block: Block, setting: Setting) -> float:
        return self.weights.block(block, setting) + self.cache.block(block, setting)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self.weights.joint(left, right, setting)

    def fixed(self, setting: Setting) -> float:
        return self.weights.fixed(setting)

    def entry(self, width: int, setting: Setting) -> float:
        return self.weights.entry(width, setting)

    def exit(self, width: int, setting: Setting) -> float:
        return self.weights.exit(width, setting)


@dataclass(frozen=True)
class Memory(Composite):
    """Memory for one query [bytes]: weights + key-value cache + peak of the activations.

    The parts are those of `WeightMemory` with `CacheMemory`, a sum, and `ActivationMemory`, a maximum. The cache counts in full,
    although it is so only when the last layer has run: an upper bound, exact where the output head is the peak.

    Attributes:
        seq_len: as in `ActivationMemory`.
        batch: as in `ActivationMemory`.
        logits: as in `ActivationMemory`.
        attention: as in `ActivationMemory`.
        bits: of the weights, as in `WeightMemory`.
        embedding_bits: of the weights, as in `WeightMemory`.
        activation_bits: bits an activation.
        cache_bits: bits a number of the cache, None: as activations.
        apart: of the weights, as in `WeightMemory`.

    Raises:
        ValueError: as its parts do.
    """

    seq_len: int = 128
    batch: int = 1
    bits: float = 32
    embedding_bits: float | None = None
    logits: str = "last"
    attention: str = "fused"
    activation_bits: float = 32
    cache_bits: float | None = None
    apart: bool | None = None

    name = "memory"
    unit = "bytes"
    least = 0.0
    revision = 2

    def __post_init__(self) -> None:
        _ = self.parts  # wrong sizes are refused by the parts

    @cached_property
    def parts(self) -> tuple[Separable, ...]:
        """Weights with the cache, a sum; peak of the activations, a maximum."""
        cache_bits = self.activation_bits if self.cache_bits is None else self.cache_bits
        return (
            _Held(WeightMemory(self.bits, self.embedding_bits, self.apart), CacheMemory(self.seq_len, self.batch, cache_bits)),
            ActivationMemory(self.seq_len, self.batch, self.activation_bits, self.logits, self.attention),
        )

    @property
    def signs(self) -> tuple[int, ...]:
        """Grows with both."""
        return (1, 1)

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        held, peak = parts
        return held + peak

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`: the sum itself."""
        return np.ones(np.shape(lower)), np.zeros(np.shape(lower)[:-1])


@dataclass(frozen=True)
class MemoryShare(Composite):
    """Share of a device's memory that one query takes: memory / ram_bytes. The paper wishes for at most 0.1.

    Attributes:
        memory: a `Memory`.
        ram_bytes: memory of the device, such as 4e9.
        device: its name, where it has one that `hardware_models.names` knows.

    Raises:
        ValueError: for another memory and for ram_bytes that is not a finite number above 0.
    """

    memory: Memory
    ram_bytes: float
    device: str = ""

    name = "memory share"
    unit = "1"
    least = 0.0
    revision = 2

    def __post_init__(self) -> None:
        if not isinstance(self.memory, Memory):
            raise ValueError(f"memory is {self.memory!r}; expected a Memory such as Memory(seq_len=128)")
        positive_number("ram_bytes", self.ram_bytes)

    @property
    def parts(self) -> tuple[Separable, ...]:
        """Those of the memory."""
        return self.memory.parts

    @property
    def signs(self) -> tuple[int, ...]:
        """Those of the memory."""
        return self.memory.signs

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return self.memory.formula(parts) / self.ram_bytes

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`: the share itself."""
        coefficients, constant = self.memory.overestimator(lower, upper, near)
        return coefficients / self.ram_bytes, constant / self.ram_bytes
