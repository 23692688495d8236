"""The network's configuration: an `Architecture` in the form that the Hugging Face libraries save, load and pass around.

This file and `modeling_merino` import torch and transformers alone, so that a folder with copies of them loads anywhere. What a
family leaves open is said here key by key; where the package is installed, `formulation` checks it.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

try:
    from formulation.architecture import Architecture, Block
    from formulation.family import family_of
    from formulation.records.reading import read_record

    PACKAGE = True
except ImportError:  # a copy in a folder that was passed on, which was checked when it was made
    PACKAGE = False

BEFORE = ("block_widths", "block_ffn_widths", "block_depths")
"""What said the blocks while positions were as wide as the embedding and the final norm stood behind the last map."""

NOT_BUILT = {
    "gpt_neox": "adds attention and feed-forward network to the stream side by side",
    "opt_post_norm": "has its norms behind attention and feed-forward network",
}
"""Families that are costed and not built here, and what they do that the network does not."""

AUTO_MAP = {
    "AutoConfig": "configuration_merino.MerinoConfig",
    "AutoModel": "modeling_merino.MerinoModel",
    "AutoModelForCausalLM": "modeling_merino.MerinoForCausalLM",
    "AutoModelForSequenceClassification": "modeling_merino.MerinoForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_merino.MerinoForTokenClassification",
}
"""Which class of a folder's own code each Auto class of transformers takes."""

CODE = ("configuration_merino.py", "modeling_merino.py", "quantized_weights.py")
"""The files that a folder carries, so that it loads where the package is not installed."""

_JOINTS = ("linear", "pad")
"""What joins unequal widths: a map, or zeros behind a narrower stream and nothing of what a wider one has more."""


@dataclass(frozen=True)
class BlockShape:
    """A block as numbers: what config.json says of it, and what follows where it says nothing.

    Attributes:
        width: of the residual stream, E.
        ffn_width: of the feed-forward network, F.
        depth: how often a layer is applied, L.
        heads: query heads, h; E / head_size unless stated.
        kv_heads: key/value heads, k; h unless stated.
        head_size: of queries and keys, d.
        value_head_size: of values; d unless stated.
        gated: whether the feed-forward network has a gate.
        shared: whether the layers are one set of weights.
    """

    width: int
    ffn_width: int
    depth: int
    heads: int
    kv_heads: int
    head_size: int
    value_head_size: int
    gated: bool
    shared: bool

    @classmethod
    def read(cls, block: dict[str, Any], shared: bool) -> BlockShape:
        """A block of config.json; `shared` is the configuration's, for a block that does not say."""
        head_size = block.get("head_size") or 64
        heads = block.get("heads") or max(block["width"] // head_size, 1)
        return cls(
            block["width"],
            block["ffn_width"],
            block["depth"],
            heads,
            block.get("kv_heads") or heads,
            head_size,
            block.get("value_head_size") or head_size,
            bool(block.get("gated")),
            shared if block.get("shared") is None else block["shared"],
        )

    @property
    def names(self) -> dict[str, int]:
        """The sizes of a layer under the names that transformers has for them."""
        return {
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "intermediate_size": self.ffn_width,
        }

    @property
    def stored(self) -> int:
        """How many layers have weights of their own."""
        return min(self.depth, 1) if self.shared else self.depth


def rules_of(family: Any) -> dict[str, Any]:
    """A `formulation.family.Family` as keys of the configuration."""
    return {
        "biases": list(family.biases),
        "norm_bias": family.norm_bias,
        "learned_positions": family.learned_positions,
        "extra_positions": family.extra_positions,
        "head_norms": family.head_norms,
        "one_matrix": family.one_matrix,
        "hidden_act": family.activation,
    }


@strict
class MerinoConfig(PreTrainedConfig):
    """Configuration of a block-wise decoder-only transformer; without arguments it is MeRino-52M.

    Attributes:
        blocks: the blocks, input first: what `Block.to_dict` says of each, such as {"width": 512, "ffn_width": 512, "depth": 2}.
        shared: whether the layers inside a block are one set of weights, unless the block says otherwise.
        embedding_width: width of the token embedding and of the output head.
        vocab_size: number of tokens.
        max_position_embeddings: the longest sequence.
        family: the name of the rules that the next seven keys spell out; `from_architecture` fills them in.
        biases: names of the maps that add a bias: query, key, value, output, up, gate, down.
        norm_bias: True: every norm is a LayerNorm with biases; False: an RMSNorm (Zhang & Sennrich 2019).
        learned_positions: True: positions are a table; False: rotary (Su et al. 2021).
        extra_positions: rows of that table in front of the first position; OPT has 2.
        head_norms: whether queries and keys have a norm each, as wide as a head.
        one_matrix: whether query, key and value are stored as one matrix.
        hidden_act: activation of the feed-forward network, by its name in transformers: "relu", "gelu", ...
        joints: what joins unequal widths, "linear" or "pad".
        rope_theta: base of the rotary positions.
        initializer_range: σ, standard deviation of the initial weights (`modeling_merino` says which start otherwise).
        dropout: probability of dropping an entry of what enters the blocks or of what a sub-layer adds to the residual stream.
        attention_dropout: probability of dropping an attention weight.
        layer_norm_eps: ε of every norm.
        tie_word_embeddings: whether the output head is the token embedding.
        num_hidden_layers: Σ L_i, how often a layer is *applied*, and so how many entries the key-value cache has.
        hidden_size: width of the hidden states that enter the output head, embedding_width.
        num_attention_heads, num_key_value_heads, head_dim, intermediate_size: of the layer that has the most heads.

    The last three lines are names that other programs read. They follow from the blocks: leave them out, or state them rightly.

    Raises:
        ValueError: if they describe no network, or one by other rules.
    """

    model_type = "merino"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    blocks: list[dict[str, Any]] | tuple[dict[str, Any], ...] = (
        {"width": 512, "ffn_width": 512, "depth": 2},
        {"width": 512, "ffn_width": 512, "depth": 3},
        {"width": 640, "ffn_width": 640, "depth": 2},
        {"width": 896, "ffn_width": 896, "depth": 1},
    )
    shared: bool = True
    embedding_width: int = 768
    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    family: str = "merino"
    biases: list[str] | tuple[str, ...] = ("query", "key", "value", "output", "up", "gate", "down")
    norm_bias: bool = True
    learned_positions: bool = True
    extra_positions: int = 2
    head_norms: bool = False
    one_matrix: bool = True
    hidden_act: str = "relu"
    joints: str = "linear"
    rope_theta: float | int = 10_000.0
    initializer_range: float | int = 0.02
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    layer_norm_eps: float | int = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if before := [name for name in BEFORE if name in kwargs]:
            raise ValueError(
                f"{before[0]} is of a network from before positions became as wide as the first block and the final norm as the "
                "last; its weights do not fit the network of today: train the design again"
            )
        if kwargs.get("per_layer_config") is not None:
            raise ValueError("per_layer_config is given, and it follows from the blocks; leave it out, or change the blocks")
        self.blocks = [dict(block) for block in self.blocks]
        self.biases = list(self.biases)
        self._check()
        self._follow()
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        """ValueError for what describes no network."""
        for block in self.blocks:
            if block.get("bits") is not None:
                raise ValueError(
                    f"the block {block} states the bits of its weights; a network is made and trained in floating point: leave the "
                    "bits out, and quantize what was trained"
                )
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; expected a name that transformers knows, such as relu or gelu")
        if self.joints not in _JOINTS:
            raise ValueError(f"joints is {self.joints!r}; expected {' or '.join(_JOINTS)}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability of at least 0 and less than 1")
        for name in ("initializer_range", "layer_norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if PACKAGE:
            self.blocks = [block.to_dict() for block in self.to_architecture().blocks]  # with the gate that the family has
        odd = [shape.head_size for shape in self.shapes if shape.depth and shape.head_size % 2]
        if odd and not self.learned_positions:
            raise ValueError(f"a block has heads of size {odd[0]}; rotary positions turn pairs of values: choose an even head_size")

    def _follow(self) -> None:
        """Set what follows from the blocks; ValueError where something else was stated."""
        layers = [shape for shape in self.shapes if shape.depth]
        most = max(layers, key=lambda shape: shape.heads)
        depth = sum(shape.depth for shape in layers)
        following = {"num_hidden_layers": depth, "hidden_size": self.embedding_width, **most.names}
        for name, value in following.items():
            stated = getattr(self, name)
            if stated is not None and stated != value:
                raise ValueError(f"{name} is {stated}, and by the blocks it is {value}; leave it out, or change the blocks")
            setattr(self, name, value)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **options: Any) -> None:
        """Write config.json and, beside it, the code that builds the network: `from_pretrained(..., trust_remote_code=True)`.

        Models are saved by way of this, and so are the checkpoints of transformers' Trainer.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.auto_map = dict(AUTO_MAP)
        for path in (Path(__file__).with_name(name) for name in CODE):
            if path.is_file() and path.parent.resolve() != folder.resolve():  # a configuration loaded alone came without models
                shutil.copyfile(path, folder / path.name)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **options)

    @property
    def shapes(self) -> tuple[BlockShape, ...]:
        """The blocks as numbers."""
        return tuple(BlockShape.read(block, self.shared) for block in self.blocks)

    @property  # type: ignore[misc]  # read alone: it follows from the blocks
    def per_layer_config(self) -> tuple[MerinoConfig, ...]:  # type: ignore[override]
        """The configuration of each application of a layer, under transformers' names: what its caches are made by.

        Where values have a head size of their own, they are `v_head_dim` wide and queries and keys `qk_head_dim`.
        """
        return tuple(own for shape in self.shapes for own in [self._of_layer(shape)] * shape.depth)

    def _of_layer(self, shape: BlockShape) -> MerinoConfig:
        own = copy.copy(self)
        own.__dict__ |= shape.names | {"hidden_size": shape.width}
        if shape.value_head_size != shape.head_size:
            own.__dict__ |= {"qk_head_dim": shape.head_size, "v_head_dim": shape.value_head_size}
        return own

    @classmethod
    def from_architecture(cls, architecture: Architecture, **options: Any) -> MerinoConfig:
        """The configuration of a `formulation.Architecture`.

        Args:
            architecture: of any family but gpt_neox and opt_post_norm.
            options: what an architecture leaves open (dropout, hidden_act, ...).

        Raises:
            ValueError: for those two families, and for weights of stated bits.
        """
        family = family_of(architecture.family)
        if family.name in NOT_BUILT:
            raise ValueError(
                f"the design is of the family {family.name}, which {NOT_BUILT[family.name]}; expected another family, or take the "
                "class of that name in transformers"
            )
        return cls(
            blocks=[block.to_dict() for block in architecture.blocks],
            shared=architecture.shared,
            embedding_width=architecture.embedding_width,
            vocab_size=architecture.vocabulary,
            max_position_embeddings=architecture.positions,
            family=family.name,
            tie_word_embeddings=architecture.tied,
            joints=architecture.joints,
            **{**rules_of(family), **options},
        )

    def to_architecture(self) -> Architecture:
        """The `formulation.Architecture` that this configuration realizes: `from_architecture` backwards.

        Raises:
            ValueError: if there is none, or if its family has other rules.
        """
        family = family_of(self.family)
        for name, value in rules_of(family).items():
            if name != "hidden_act" and getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, and in the family {family.name} it is {value}; make the "
                    "configuration with MerinoConfig.from_architecture"
                )
        return Architecture(
            tuple(read_record(Block, block, f"block {number} of the configuration") for number, block in enumerate(self.blocks, 1)),
            shared=self.shared,
            embedding_width=self.embedding_width,
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
            family=self.family,
            tied=self.tie_word_embeddings,
            joints=self.joints,
        )
