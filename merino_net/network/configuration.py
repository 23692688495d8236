"""The network's configuration: an `Architecture` in the form that the Hugging Face libraries save, load and pass around."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from formulation.architecture import Architecture, Block
from formulation.family import FAMILIES
from formulation.records.reading import read_record

_FAMILY = FAMILIES["merino"]
_BEFORE = ("block_widths", "block_ffn_widths", "block_depths")
"""What said the blocks while positions were as wide as the embedding and the final norm stood behind the last map."""


@strict
class MerinoConfig(PreTrainedConfig):
    """Configuration of a block-wise decoder-only transformer; without arguments it is MeRino-52M.

    Attributes:
        blocks: the blocks, input first: what `Block.to_dict` says of each, such as {"width": 512, "ffn_width": 512, "depth": 2}.
        shared: whether the layers inside a block are one set of weights, unless the block says otherwise.
        embedding_width: width of the token embedding and of the tied output head.
        vocab_size: number of tokens.
        max_position_embeddings: the longest sequence; the table of learned positions has two rows more, as OPT's.
        hidden_act: activation of the feed-forward network, by its name in transformers: "relu", "gelu", ...
        initializer_range: σ, standard deviation of the initial weights (`modeling` says which start otherwise).
        dropout: probability of dropping an entry of what enters the blocks or of what a sub-layer adds to the residual stream.
        attention_dropout: probability of dropping an attention weight.
        layer_norm_eps: ε of every LayerNorm.

    What follows from these is read off: `num_hidden_layers` (Σ L_i: how often a layer is *applied*, and so how many entries
    the key-value cache has), `hidden_size`, and the heads and their width in the block that has the most.

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
    hidden_act: str = _FAMILY.activation
    initializer_range: float | int = 0.02
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    layer_norm_eps: float | int = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if before := [name for name in _BEFORE if name in kwargs]:
            raise ValueError(
                f"{before[0]} is of a network from before positions became as wide as the first block and the final norm as the "
                "last; its weights do not fit the network of today: train the design again"
            )
        self.blocks = [dict(block) for block in self.blocks]
        if not self.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings is False; the output head of a MeRino network is its token embedding: leave it True"
            )
        for block in self.to_architecture().blocks:
            if block.bits is not None:
                raise ValueError(
                    f"the block {block} states the bits of its weights; a network is made and trained in floating point: leave the "
                    "bits out, and quantize what was trained"
                )
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; expected a name that transformers knows, such as relu or gelu")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability of at least 0 and less than 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        super().__post_init__(**kwargs)

    @classmethod
    def from_architecture(cls, architecture: Architecture, **options: Any) -> MerinoConfig:
        """The configuration of an architecture.

        Args:
            architecture: of the family merino.
            options: what an architecture leaves open (dropout, hidden_act, ...).

        Raises:
            ValueError: for another family, an output head of its own and weights of stated bits, which the network cannot have.
        """
        if architecture.family != _FAMILY.name:
            raise ValueError(
                f"the design is of the family {architecture.family}, which has no network here; expected {_FAMILY.name}, "
                "or a class of that family in transformers"
            )
        if not architecture.tied:
            raise ValueError("the design has an output head of its own; that of a MeRino network is its token embedding: tie them")
        return cls(
            blocks=[block.to_dict() for block in architecture.blocks],
            shared=architecture.shared,
            embedding_width=architecture.embedding_width,
            vocab_size=architecture.vocabulary,
            max_position_embeddings=architecture.positions,
            **options,
        )

    def to_architecture(self) -> Architecture:
        """The architecture that this configuration realizes: `from_architecture` backwards."""
        return Architecture(
            tuple(read_record(Block, block, f"block {number} of the configuration") for number, block in enumerate(self.blocks, 1)),
            shared=self.shared,
            embedding_width=self.embedding_width,
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
            family=_FAMILY.name,
            tied=self.tie_word_embeddings,
        )

    @property
    def num_hidden_layers(self) -> int:
        """Layer applications, Σ L_i."""
        return sum(block["depth"] for block in self.blocks)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states that enter the output head."""
        return self.embedding_width

    @property
    def _most_heads(self) -> Block:
        return max(self.to_architecture().blocks, key=lambda block: block.heads)

    @property
    def num_attention_heads(self) -> int:
        """Query heads of the block that has the most."""
        return self._most_heads.heads

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the block that has the most."""
        return self._most_heads.head_size
