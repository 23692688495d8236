"""Cost models: bytes that a network takes when it runs: its weights, its key-value cache, its peak of activations, their sum.

The formulas follow the tensors that `merino_net.network.modeling` holds at the same time under PyTorch; tests compare them with
what PyTorch allocates. What a device's runtime takes for itself (libraries, CUDA context, workspaces) is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from formulation import Block, Combine, Composite, Separable
from formulation.architecture import Setting, positive_integer, positive_number
from formulation.layer import Layer, layer_of, surroundings
from hardware_models.params import Params
from hardware_models.workload import LOGITS

ATTENTION = ("fused", "eager")


@dataclass(frozen=True)
class WeightMemory(Separable):
    """Memory of the weights [bytes]: `Params` × bits / 8, shared weights once.

    Attributes:
        bits: bits a weight, biases and norms included; fractional where scales are spread over groups (4 + 16/32 = 4.5).
        embedding_bits: bits a weight of the token embedding, tied with the head, and of the positions; None: `bits`.

    Raises:
        ValueError: for bits that are not a finite number above 0.
    """

    bits: float = 32
    embedding_bits: float | None = None

    name = "weight memory"
    unit = "bytes"
    least = 0.0

    def __post_init__(self) -> None:
        positive_number("bits", self.bits)
        if self.embedding_bits is not None:
            positive_number("embedding_bits", self.embedding_bits)

    def block(self, block: Block, setting: Setting) -> float:
        return Params().block(block, setting) * self.bits / 8

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return Params().joint(left, right, setting) * self.bits / 8

    def fixed(self, setting: Setting) -> float:
        around = surroundings(setting)
        embedding = around.tokens.parameters + around.positions.parameters
        others = around.parameters - embedding
        return (embedding * (self.bits if self.embedding_bits is None else self.embedding_bits) + others * self.bits) / 8


@dataclass(frozen=True)
class CacheMemory(Separable):
    """Memory of the key-value cache after T tokens of B sequences [bytes]: Σ_i L_i · 2k_i·d · B·T · bits / 8.

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

        8T + b·M·(E₀ + e·E + a)            in a block
        8T + b·M·(E₀ + left + right + f)   in a joint
        8T + b·M·(3E₀ + 2)                 final norm where no joint precedes it
        b·(M·E₀ + K·V)                     output head: hidden states and logits

    with T tokens, B sequences, M = B·T, b = bits/8, K = M for all logits, B for the last ones. E₀ is the embedding, which lives
    as long as the stack runs, 8T the integer positions. e = 2 (the block's input and the layer's), 1 where L = 1; where L = 0 the
    sum is E₀ + E. f = E₀ + 2 where right = E₀, for the final norm's output and statistics, else 0. Inside a layer, per token,

        fused  a = max(Q + q + E, 3E + max(2F, E + F))
        eager  a = max(Q + p, Q + (1 + c)q + 2s, Q + (1 + t)q + E + s, 3E + s + max(2F, E + F)) + T

    Q: norm, queries, keys and values; q: mixed values; E: W_O's output; then 3E: that output, the stream and its norm, and the FFN
    before and after its activation (2F) or after it and W_2's output (E + F). s = H·T: one set of attention weights; p = 2s: scores
    and weights in the softmax, (1 + 8/b)s where b ≠ 4, since it runs in 32 bits; T: the mask; c, t: values and mixed values copied
    into order, t = 1 where H > 1 and T > 1, c = 1 where B > 1 besides, else 0.

    Source: the tensors that `merino_net.network.modeling` keeps alive at each step; what PyTorch 2.13 allocates on a CPU in 32
    bits, to the byte. Left out: the input tokens, work space that attention and matrix products take inside (some 100 kB a thread
    on a CPU), what an allocator rounds up.

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
        """Numbers a token that a layer makes: a."""
        width, mixed, up, down = layer.width, layer.query_width, layer["up"], layer["down"]
        entered = width + layer.query_width + layer.cache_width
        ffn = 3 * width + max(up.outputs + down.inputs, down.inputs + down.outputs)
        if self.attention == "fused":
            return max(entered + mixed + width, ffn)
        weights = layer.heads * self.seq_len
        copied = layer.heads > 1 and self.seq_len > 1
        softmax = entered + weights * (2 if self.bits == 32 else 1 + 64 / self.bits)
        mixing = entered + (1 + (copied and self.batch > 1)) * mixed + 2 * weights
        return max(softmax, mixing, entered + (1 + copied) * mixed + width + weights, ffn + weights)

    def block(self, block: Block, setting: Setting) -> float:
        layer = layer_of(block, setting)
        if not block.depth:
            return self._in_the_stack(setting.embedding_width + layer.width)
        entered = (1 if block.depth == 1 else 2) * layer.width
        return self._in_the_stack(setting.embedding_width + entered + self._layer(layer))

    def joint(self, left: int, right: int, setting: Setting) -> float:
        outside = setting.embedding_width
        return self._in_the_stack(outside + left + right + (outside + 2 if right == outside else 0))

    def fixed(self, setting: Setting) -> float:
        around = surroundings(setting)
        tokens = self.batch * self.seq_len
        kept = tokens if self.logits == "all" else self.batch
        head = self.bits / 8 * (tokens * around.head.inputs + kept * around.head.outputs)
        return max(head, self._in_the_stack(3 * around.norm.width + 2))


@dataclass(frozen=True)
class _Held(Separable):
    """What stays in memory between passes [bytes]: weights and cache."""

    weights: WeightMemory
    cache: CacheMemory

    name = "weights and cache"
    unit = "bytes"
    least = 0.0

    def block(self, block: Block, setting: Setting) -> float:
        return self.weights.block(block, setting) + self.cache.block(block, setting)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self.weights.joint(left, right, setting)

    def fixed(self, setting: Setting) -> float:
        return self.weights.fixed(setting)


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

    name = "memory"
    unit = "bytes"
    least = 0.0

    def __post_init__(self) -> None:
        _ = self.parts  # wrong sizes are refused by the parts

    @cached_property
    def parts(self) -> tuple[Separable, ...]:
        """Weights with the cache, a sum; peak of the activations, a maximum."""
        cache_bits = self.activation_bits if self.cache_bits is None else self.cache_bits
        return (
            _Held(WeightMemory(self.bits, self.embedding_bits), CacheMemory(self.seq_len, self.batch, cache_bits)),
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
