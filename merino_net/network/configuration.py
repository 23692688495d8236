"""The network's configuration: an `Architecture` in the form that the Hugging Face libraries save, load and pass around."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from formulation.architecture import HEAD_SIZE, Architecture, Block


@strict
class MerinoConfig(PreTrainedConfig):
    """Configuration of a block-wise decoder-only transformer; without arguments it is MeRino-52M.

    Attributes:
        block_widths: E_i of each block.
        block_ffn_widths: F_i of each block.
        block_depths: L_i of each block.
        shared: whether the layers inside a block are one set of weights.
        embedding_width: width of the token embedding and of the tied output head.
        vocab_size: number of tokens.
        max_position_embeddings: number of learned positions.
        hidden_act: activation between the two feed-forward maps, by its name in transformers: "gelu", "relu", ...
        initializer_range: σ, standard deviation of the initial weights (`modeling` says which start otherwise).
        dropout: probability of dropping an entry of the embedding or of what a sub-layer adds to the residual stream.
        attention_dropout: probability of dropping an attention weight.
        layer_norm_eps: ε of every LayerNorm.

    What follows from these is read off: `num_hidden_layers` (Σ L_i: how often a layer is *applied*, and so how many entries
    the key-value cache has), `hidden_size`, `num_attention_heads` (of the widest block).

    Raises:
        ValueError: if they describe no network.
    """

    model_type = "merino"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    block_widths: list[int] | tuple[int, ...] = (512, 512, 640, 896)
    block_ffn_widths: list[int] | tuple[int, ...] = (512, 512, 640, 896)
    block_depths: list[int] | tuple[int, ...] = (2, 3, 2, 1)
    shared: bool = True
    embedding_width: int = 768
    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    hidden_act: str = "gelu"
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
        for name in ("block_widths", "block_ffn_widths", "block_depths"):
            setattr(self, name, list(getattr(self, name)))
        if not len(self.block_widths) == len(self.block_ffn_widths) == len(self.block_depths):
            raise ValueError(
                f"block_widths, block_ffn_widths and block_depths name {len(self.block_widths)}, {len(self.block_ffn_widths)} "
                f"and {len(self.block_depths)} blocks; give one value of each for every block"
            )
        self._architecture()
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; expected a name that transformers knows, such as gelu or relu")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability of at least 0 and less than 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not self.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings is False; the output head of a MeRino network is its token embedding: leave it True"
            )
        super().__post_init__(**kwargs)

    @classmethod
    def from_architecture(cls, architecture: Architecture, **options: Any) -> MerinoConfig:
        """The configuration of `architecture`; `options` are those that an architecture leaves open (dropout, hidden_act, ...)."""
        return cls(
            block_widths=list(architecture.widths),
            block_ffn_widths=list(architecture.ffn_widths),
            block_depths=list(architecture.depths),
            shared=architecture.shared,
            embedding_width=architecture.embedding_width,
            vocab_size=architecture.vocabulary,
            max_position_embeddings=architecture.positions,
            **options,
        )

    def to_architecture(self) -> Architecture:
        """The architecture that this configuration realizes: `from_architecture` backwards."""
        return self._architecture()

    def _architecture(self) -> Architecture:
        shapes = zip(self.block_widths, self.block_ffn_widths, self.block_depths, strict=True)
        return Architecture(
            tuple(Block(*shape) for shape in shapes),
            shared=self.shared,
            embedding_width=self.embedding_width,
            vocabulary=self.vocab_size,
            positions=self.max_position_embeddings,
        )

    @property
    def num_hidden_layers(self) -> int:
        """Layer applications, Σ L_i."""
        return sum(self.block_depths)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states that enter the blocks and the output head."""
        return self.embedding_width

    @property
    def num_attention_heads(self) -> int:
        """Attention heads of the widest block."""
        return max(block.heads for block in self._architecture().blocks)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return HEAD_SIZE
