"""A network as `model.gguf`, the file that llama.cpp and what is built on it run.

llama.cpp knows architectures by name, each with a graph of its own. A network is first read as a list of layers, and then
stated under the name whose graph computes just that:

    llama, qwen2, qwen3    layers alike: RMSNorm, rotary positions, gate with SiLU; qwen2 with biases, qwen3 with norms of heads
    deci                   llama and qwen2, where heads, key/value heads or FFN width differ from layer to layer
    openelm                qwen3 with a tied head, where they differ
    gpt2                   layers alike: LayerNorm, learned positions, biases, no gate, GELU; and ReLU, see `_relu_as_gelu`

A layer that is applied several times is stored as often: two tensors of a GGUF file cannot share their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType

from merino_net.network.configuration_merino import BlockShape
from merino_net.network.counting import parameter_count
from merino_net.network.modeling_merino import MerinoForCausalLM
from merino_net.network.plain import own_form

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE = "model.gguf"

_WEIGHTS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
"""Number formats of matrices, as tensors and as the file have them. q8_0 and q4_0: 32 numbers share a scale in half precision."""

_BLOCK = 32
"""Numbers that share a scale; rows that do not divide by it stay in half precision."""

_PRE_TOKENIZERS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""What separates words before pairs are merged, by llama.cpp's name; ByteLevel with a regex of its own is the first."""


@dataclass(frozen=True)
class _Map:
    """A linear map or a norm: weight (out, in) or (width,), and a bias if there is one."""

    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class _Layer:
    """A layer's maps and norms by our names ("query", "attention_norm", ...), and its heads."""

    parts: dict[str, _Map]
    heads: int
    kv_heads: int
    head_size: int

    @property
    def ffn_width(self) -> int:
        return self.parts["up"].weight.shape[0]


@dataclass(frozen=True)
class _Network:
    """A network as a list of layers, each as often as it is applied.

    Attributes:
        tokens: the embedding, (V, E).
        positions: the table, (T, E), without rows that no position reads; None: rotary.
        layers: input first.
        norm: the final one.
        head: the output head, (V, E); None: the embedding.
        activation: of the feed-forward networks, by its name in transformers.
        max_positions: the longest sequence.
        eps: of all norms.
        rope_theta: base of rotary positions.
    """

    tokens: np.ndarray
    positions: np.ndarray | None
    layers: list[_Layer]
    norm: _Map
    head: np.ndarray | None
    activation: str
    max_positions: int
    eps: float
    rope_theta: float

    @property
    def alike(self) -> bool:
        """Whether all layers have the same heads and widths."""
        return len({(each.heads, each.kv_heads, each.ffn_width) for each in self.layers}) == 1


def export_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str) -> None:
    """Write `model.gguf` to an empty folder.

    Matrices are stored in `weights` by the quantization of the `gguf` package, those whose rows do not divide by 32 in half
    precision, norms and biases in single precision.

    Args:
        model: float32, on the CPU; a network of ours or of a class of transformers that `own_form` reads.
        tokenizer: a byte-level BPE one.
        folder: where to.
        weights: f32, f16, q8_0 or q4_0.

    Raises:
        ValueError: if llama.cpp has no architecture that computes what the network does, or cannot read the tokenizer.
    """
    network = _read(own_form(model))
    name = _architecture(network)
    if network.activation == "relu":
        network = _relu_as_gelu(network, exact=weights == "f32")
    tensor_type, file_type = _WEIGHTS[weights]
    writer = gguf.GGUFWriter(folder / FILE, name)
    _write_sizes(writer, network)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    parameters = parameter_count(model)
    writer.add_name(Path(model.config.name_or_path or "").name or model.config.model_type)
    writer.add_size_label(gguf.size_label(parameters, 0, 0, 0))
    _write_tokenizer(writer, tokenizer, len(network.tokens))
    for tensor, values in _tensors(network, name):
        kind = _type_of(values, tensor_type)
        writer.add_tensor(tensor, _stored(tensor, values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(values: np.ndarray, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if values.ndim == 1:
        return GGMLQuantizationType.F32
    quantized = wanted not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
    return GGMLQuantizationType.F16 if quantized and values.shape[1] % _BLOCK else wanted


def _stored(tensor: str, values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The values in a number format; ValueError if half precision, which ends at 65,504, cannot hold them."""
    with np.errstate(over="ignore"):
        stored: np.ndarray = gguf.quantize(np.ascontiguousarray(values), kind)
    if kind is GGMLQuantizationType.F16 and not np.isfinite(stored).all():
        raise ValueError(f"a weight of {tensor} is {abs(values).max():g}, more than half precision holds; export to f32")
    return stored


def _read(model: MerinoForCausalLM) -> _Network:
    """The network as a list of layers; ValueError if its layers have no form in a GGUF file, under any name."""
    config, base = model.config, model.model
    shapes: Sequence[BlockShape] = config.shapes
    if len({config.embedding_width, *(shape.width for shape in shapes)}) > 1:
        widths = ", ".join(str(shape.width) for shape in shapes)
        _refuse(f"unequal residual widths (embedding {config.embedding_width}, blocks {widths}): solve a space of one width")
    layers = []
    for shape, block in zip(shapes, base.blocks, strict=True):
        if shape.depth and shape.value_head_size != shape.head_size:
            _refuse(f"values of another head size ({shape.value_head_size}) than queries and keys ({shape.head_size})")
        read = [_read_layer(layer, shape) for layer in block.layers]
        layers += [read[i % len(read)] for i in range(shape.depth)]
    return _Network(
        _array(base.tokens.weight),
        None if base.positions is None else _array(base.positions.weight[base.first_position :]),
        layers,
        _map(base.norm),
        None if model.lm_head.weight is base.tokens.weight else _array(model.lm_head.weight),
        config.hidden_act,
        config.max_position_embeddings,
        config.layer_norm_eps,
        config.rope_theta,
    )


def _read_layer(layer: Any, shape: BlockShape) -> _Layer:
    attention, ffn = layer.attention, layer.ffn
    if hasattr(attention, "query_key_value"):
        query, key, value = _split(_map(attention.query_key_value), attention.parts)
    else:
        query, key, value = _map(attention.query), _map(attention.key), _map(attention.value)
    parts = {"query": query, "key": key, "value": value, "output": _map(attention.output)}
    parts |= {"attention_norm": _map(layer.attention_norm), "ffn_norm": _map(layer.ffn_norm)}
    parts |= {"up": _map(ffn.up), "down": _map(ffn.down)}
    if ffn.gate is not None:
        parts["gate"] = _map(ffn.gate)
    if hasattr(attention, "query_norm"):
        parts |= {"query_norm": _map(attention.query_norm), "key_norm": _map(attention.key_norm)}
    return _Layer(parts, shape.heads, shape.kv_heads, shape.head_size)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().float().numpy()


def _map(module: Any) -> _Map:
    bias = getattr(module, "bias", None)
    return _Map(_array(module.weight), None if bias is None else _array(bias))


def _split(joined: _Map, sizes: list[int]) -> list[_Map]:
    """Maps that are stored as one matrix, one above the other."""
    ends = np.cumsum(sizes)[:-1]
    weights = np.split(joined.weight, ends)
    biases = [None] * len(sizes) if joined.bias is None else np.split(joined.bias, ends)
    return [_Map(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _refuse(what: str) -> None:
    raise ValueError(f"llama.cpp has no architecture with {what}; or ship it to ort-genai, openvino-genai or executorch")


def _architecture(network: _Network) -> str:
    """llama.cpp's name for the network; ValueError, saying what stands in the way, if it has none."""
    first = network.layers[0].parts
    head_sizes = sorted({layer.head_size for layer in network.layers})
    if len(head_sizes) > 1:
        _refuse(f"head sizes that differ from layer to layer ({', '.join(map(str, head_sizes))}): solve a space of one head size")
    if any(("gate" in layer.parts) != ("gate" in first) for layer in network.layers):
        _refuse("a gate in some layers and none in others: solve a space in which all layers are gated, or none")
    return _rotary_architecture(network) if network.positions is None else _learned_architecture(network)


def _rotary_architecture(network: _Network) -> str:
    first = network.layers[0].parts
    if "gate" not in first:
        _refuse("rotary positions, RMSNorm and feed-forward networks without a gate: solve a space in which all layers are gated")
    if network.norm.bias is not None:
        _refuse("rotary positions and LayerNorm")
    if network.activation not in ("silu", "swish"):
        _refuse(f"rotary positions and the activation {network.activation}; expected silu")
    biased = {name for name in first if first[name].bias is not None}
    if "query_norm" in first:
        if biased:
            _refuse("norms on queries and keys beside biases")
        if network.alike:
            return "qwen3"
        if network.head is not None:
            _refuse("norms on queries and keys, layers that differ and an output head of its own: tie the head to the embedding")
        return "openelm"
    if biased not in (set(), {"query", "key", "value"}):
        _refuse(f"rotary positions and biases of {', '.join(sorted(biased))}; expected none, or those of query, key and value")
    layer, width = network.layers[0], network.tokens.shape[1]
    if not network.alike or (biased and layer.heads * layer.head_size != width):  # qwen2 wants heads that fill the width
        return "deci"
    return "qwen2" if biased else "llama"


def _learned_architecture(network: _Network) -> str:
    first, width = network.layers[0], network.tokens.shape[1]
    if not network.alike:
        _refuse("learned positions and layers that differ in heads or FFN width: solve a space of layers alike, or of family llama")
    if "gate" in first.parts or "query_norm" in first.parts:
        _refuse("learned positions beside gates or norms on queries and keys")
    if network.activation not in ("gelu_new", "relu"):
        _refuse(f"learned positions and the activation {network.activation}; expected relu or gelu_new")
    if any(part.bias is None for part in (*first.parts.values(), network.norm)):
        _refuse("learned positions and maps or norms without biases")
    if first.heads * first.head_size != width:
        _refuse(
            f"learned positions and heads × head size ({first.heads} × {first.head_size}) unequal to the width ({width}): solve a "
            "space whose heads fill the width"
        )
    return "gpt2"


def _relu_as_gelu(network: _Network, exact: bool) -> _Network:
    """The same network with GELU instead of ReLU, which no architecture with learned positions has.

    gelu(s·x)/s approaches relu(x) for large s: they differ by 0.17/s at most, and only where |x| < 10/s. So all that writes to the
    residual stream is multiplied by s, a power of two, and the FFN's norm too; the other norms undo it by themselves, with
    ε·s² for ε, and the final one with its weights divided by s if the head is the embedding. Stored weights keep their digits.

    s is 2²⁰ where weights are in single precision. Elsewhere llama.cpp rounds what enters a map to half precision, which ends at
    65,504, and s is 2⁸: 0.0007 at most, less than that rounding itself.
    """
    s = 2.0**20 if exact else 2.0**8

    def times(part: _Map, weight: float, bias: float) -> _Map:
        assert part.bias is not None
        return _Map(part.weight * np.float32(weight), part.bias * np.float32(bias))

    layers = [
        replace(
            layer,
            parts={
                **layer.parts,
                "output": times(layer.parts["output"], s, s),
                "ffn_norm": times(layer.parts["ffn_norm"], s, s),
                "up": times(layer.parts["up"], 1, s),
                "down": times(layer.parts["down"], 1, s),
            },
        )
        for layer in network.layers
    ]
    assert network.positions is not None
    return replace(
        network,
        tokens=network.tokens * np.float32(s),
        positions=network.positions * np.float32(s),
        layers=layers,
        norm=network.norm if network.head is not None else times(network.norm, 1 / s, 1 / s),
        activation="gelu_new",
        eps=network.eps * s**2,
    )


def _write_sizes(writer: gguf.GGUFWriter, network: _Network) -> None:
    layers = network.layers
    writer.add_block_count(len(layers))
    writer.add_context_length(network.max_positions)
    writer.add_embedding_length(network.tokens.shape[1])
    writer.add_vocab_size(len(network.tokens))
    heads, kv_heads = [layer.heads for layer in layers], [layer.kv_heads for layer in layers]
    ffn_widths = [layer.ffn_width for layer in layers]
    writer.add_head_count(heads[0] if network.alike else heads)
    writer.add_head_count_kv(kv_heads[0] if network.alike else kv_heads)
    writer.add_feed_forward_length(ffn_widths[0] if network.alike else ffn_widths)
    writer.add_key_length(layers[0].head_size)
    writer.add_value_length(layers[0].head_size)
    if network.positions is None:
        writer.add_layer_norm_rms_eps(network.eps)
        writer.add_rope_dimension_count(layers[0].head_size)
        writer.add_rope_freq_base(network.rope_theta)
    else:
        writer.add_layer_norm_eps(network.eps)


_TENSORS = {
    "attention_norm": "attn_norm",
    "query_key_value": "attn_qkv",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
    "output": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""llama.cpp's names."""


def _tensors(network: _Network, architecture: str) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the file by its name there."""
    yield "token_embd.weight", network.tokens
    if network.positions is not None:
        yield "position_embd.weight", network.positions
    for number, layer in enumerate(network.layers):
        parts = dict(layer.parts)
        if architecture in ("llama", "deci"):
            parts |= {name: _interleaved(parts[name], layer.head_size) for name in ("query", "key")}
        if architecture in ("gpt2", "openelm"):
            parts["query_key_value"] = _stacked([parts.pop(name) for name in ("query", "key", "value")])
        for name, part in parts.items():
            yield f"blk.{number}.{_TENSORS[name]}.weight", part.weight
            if part.bias is not None:
                yield f"blk.{number}.{_TENSORS[name]}.bias", part.bias
    yield "output_norm.weight", network.norm.weight
    if network.norm.bias is not None:
        yield "output_norm.bias", network.norm.bias
    if network.head is not None:
        yield "output.weight", network.head


def _stacked(parts: list[_Map]) -> _Map:
    biases = [part.bias for part in parts if part.bias is not None]
    return _Map(np.concatenate([part.weight for part in parts]), np.concatenate(biases) if biases else None)


def _interleaved(part: _Map, head_size: int) -> _Map:
    """Rows in the order in which llama.cpp turns neighbours, where transformers turns row i of a head with row i + head_size/2.

    Both orders give the same scores, since queries and keys have the same. The architectures with norms on queries and keys, and
    qwen2, turn the rows as transformers does.
    """

    def ordered(rows: np.ndarray) -> np.ndarray:
        halves = rows.reshape(-1, 2, head_size // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    return _Map(ordered(part.weight), None if part.bias is None else ordered(part.bias))


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """The tokenizer as llama.cpp's "gpt2" kind; ValueError for anything but byte-level BPE of at most `rows` tokens."""
    stated = json.loads(tokenizer.backend_tokenizer.to_str())
    model = stated["model"]
    pre = _pre_tokenizer(stated)
    if model["type"] == "BPE" and not model["merges"]:
        raise ValueError("the tokenizer merges no pairs of bytes, which llama.cpp does not read; train one with more tokens")
    if model["type"] != "BPE" or pre is None:
        raise ValueError(
            f"the tokenizer is {model['type']} with the pre-tokenizer {json.dumps(stated['pre_tokenizer'])[:120]}; expected "
            f"byte-level BPE with the pre-tokenizer of {', '.join((*_PRE_TOKENIZERS, 'smollm'))}: train one with merino train"
        )
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer):,} tokens and the network {rows:,}; save the network's own beside it")
    tokens = [f"[unused{number}]" for number in range(rows)]
    kinds = [TokenType.UNUSED] * rows
    for text, number in model["vocab"].items():
        tokens[number], kinds[number] = text, TokenType.NORMAL
    for added in stated["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if number is not None:
            add(number)


def _pre_tokenizer(stated: dict[str, Any]) -> str | None:
    """llama.cpp's name for what separates words; None if it is not one that is written here."""
    steps = stated["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        if before == [{"type": "Digits", "individual_digits": True}]:
            return "smollm"
        return None if before else "gpt-2"
    patterns = [step["pattern"].get("Regex") for step in before if step["type"] == "Split"]
    return next((name for name, pattern in _PRE_TOKENIZERS.items() if patterns == [pattern]), None)
