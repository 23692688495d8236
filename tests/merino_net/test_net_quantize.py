"""Weights in 8 and 4 bits: the grid, the file, what is loaded from it, and GPTQ over all applications of a shared layer.

The tests of GPTQ need llmcompressor and run in its own environment (make test-quantize); all others run everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

from formulation.architecture import Architecture, Block
from merino_net import MerinoConfig, quantize
from merino_net.corpus.data import train_tokenizer
from merino_net.corpus.text import Text
from merino_net.network.counting import WEIGHT_PARTS, part_bytes
from merino_net.network.pretrained import find_models, load_model
from merino_net.network.quantized_weights import packed_integers, restored, round_to_nearest, scales_of, unpacked
from merino_net.quantize import Plan, calibration_sequences, linear_maps, read_quantize_record

HAS_GPTQ = importlib.util.find_spec("llmcompressor") is not None
needs_gptq = pytest.mark.skipif(not HAS_GPTQ, reason="llmcompressor has its own environment: make test-quantize")
HAS_NNCF = importlib.util.find_spec("nncf") is not None and importlib.util.find_spec("openvino") is not None
needs_nncf = pytest.mark.skipif(not HAS_NNCF, reason="needs the extra openvino")

REPOSITORY = Path(__file__).parents[2]
VOCABULARY, POSITIONS = 300, 64
TEXT = ["The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."]
SHARED = Architecture((Block(64, 96, 3), Block(128, 64, 2)), True, 64, VOCABULARY, POSITIONS)


def random_network(architecture: Architecture = SHARED, seed: int = 0) -> Any:
    """Weights of uneven size, as training leaves them: rounding errors then differ from column to column."""
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(architecture, initializer_range=0.1)).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(torch.empty(weight.shape[-1]).uniform_(0.5, 1.5))
    return network


def save(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    train_tokenizer(TEXT * 3, VOCABULARY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_network(), tmp_path_factory.mktemp("quantize") / "model")


def run(source: Path, output: Path, *flags: str) -> Path:
    assert quantize.main([str(source), *flags, "--output", str(output)]) == 0
    return output


def load(folder: Path) -> Any:
    [found] = find_models([str(folder)])
    return load_model(found, "float32", "cpu")[0].eval()


@torch.inference_mode()
def logits_error(network: Any, reference: Any, seed: int = 1) -> float:
    """Root mean square difference of logits over that of the logits themselves."""
    tokens = torch.randint(VOCABULARY, (8, POSITIONS), generator=torch.Generator().manual_seed(seed))
    truth = reference(tokens).logits
    return float((network(tokens).logits - truth).norm() / truth.norm())


@settings(max_examples=60)
@example(rows=2, groups=4, size=1, bits=8, seed=66)  # a scale below the normal numbers of float16
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 7), st.sampled_from([4, 8]), st.integers(0, 99))
def test_every_integer_survives_packing_and_no_weight_moves_by_more_than_half_a_step(
    rows: int, groups: int, size: int, bits: int, seed: int
) -> None:
    weight = torch.randn(rows, groups * size, generator=torch.Generator().manual_seed(seed))
    integers, scales = round_to_nearest(weight, bits, size)
    assert scales.shape == (rows, groups)
    assert int(integers.min()) >= -(2 ** (bits - 1))
    assert int(integers.max()) <= 2 ** (bits - 1) - 1
    stored = packed_integers(integers, bits)
    assert stored.nbytes == rows * -(-groups * size * bits // 8)
    assert torch.equal(unpacked(stored, groups * size), integers)
    steps = scales.float().repeat_interleave(size, -1)
    # Half a step, and what rounding the scale itself to 11 bits, or to a multiple of 2⁻²⁴, does to the largest weight.
    allowed = steps * (0.5 + 2 ** (bits - 12) + 1e-3) + 2.0 ** (bits - 26)
    assert bool(((restored((integers, scales)) - weight).abs() <= allowed).all())


def test_the_ends_of_the_grid() -> None:
    assert scales_of(torch.tensor([[0.0, 0.0], [7.5, -3.0]]), 4, None).tolist() == [[1.0], [1.0]]
    integers, _ = round_to_nearest(torch.tensor([[7.5, -7.5, 0.4]]), 4, None)
    assert integers.tolist() == [[7, -8, 0]]
    with pytest.raises(ValueError, match="too large for a float16 scale"):
        scales_of(torch.tensor([[1e9]]), 8, None)
    with pytest.raises(ValueError, match="a weight is not a finite number"):
        scales_of(torch.tensor([[float("nan")]]), 8, None)


@pytest.mark.parametrize("flags", [("8",), ("4", "--group-size", "32"), ("4", "--group-size", "32", "--embedding", "4")])
def test_what_is_loaded_is_what_was_rounded(source: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", *flags)
    network, reference = load(folder), load(source)
    plan = Plan("rtn", int(flags[0]), 32 if len(flags) > 1 else None, 4 if len(flags) > 3 else None)
    found, _ = quantize.quantize(reference, plan, None, None)  # type: ignore[arg-type]
    assert set(found) == {f"{name}.weight" for name in linear_maps(reference)} | (
        {"model.tokens.weight", "model.positions.weight"} if plan.embedding_bits else set()
    )
    for name, weight in reference.state_dict().items():
        stored = "model.tokens.weight" if name == "lm_head.weight" else name
        assert torch.equal(network.state_dict()[name], restored(found[stored]) if stored in found else weight), name
    assert network.lm_head.weight is network.model.tokens.weight
    assert 0 < logits_error(network, reference) < (0.03 if plan.bits == 8 else 0.5)
    record = read_quantize_record(folder)
    assert record is not None
    assert record["files"] == sorted(path.name for path in folder.iterdir())
    assert record["plan"]["group_size"] == plan.group_size


def test_the_whole_file_shrinks_by_what_the_bits_say(source: Path, tmp_path: Path) -> None:
    before = part_bytes(source)
    sizes = {
        flags: part_bytes(run(source, tmp_path / "-".join(flags), "--method", "rtn", "--bits", *flags))
        for flags in (("8",), ("8", "--embedding"), ("4", "--group-size", "32"), ("4", "--group-size", "32", "--embedding", "4"))
    }
    for own in (before, *sizes.values()):
        assert 0 < own["file"] - sum(own[part] for part in WEIGHT_PARTS) < 5000  # names and shapes
    assert before["embedding"] == 4 * 64 * VOCABULARY  # once: the head is the same matrix
    assert sizes["8",]["embedding"] == before["embedding"]
    assert sizes["8", "--embedding"]["embedding"] == (64 + 2) * VOCABULARY
    assert sizes["8", "--embedding"]["positions"] == (64 + 2) * (POSITIONS + 2)
    assert sizes["4", "--group-size", "32", "--embedding", "4"]["embedding"] == (32 + 2 * 2) * VOCABULARY
    assert sizes["4", "--group-size", "32", "--embedding", "4"]["file"] < 0.25 * before["file"]


def test_shared_layers_are_stored_once(tmp_path: Path, source: Path) -> None:
    from safetensors import safe_open

    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8")
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert sum(name.endswith("ffn.up.weight_packed") for name in names) == 2  # two blocks, five applications
    assert not any(name.startswith("lm_head") for name in names)


def test_the_loaded_network_is_an_ordinary_float_network(source: Path, tmp_path: Path) -> None:
    network = load(run(source, tmp_path / "out", "--method", "rtn", "--bits", "8", "--embedding"))
    network.save_pretrained(tmp_path / "float")
    assert "quantization_config" not in json.loads((tmp_path / "float" / "config.json").read_text())
    assert (tmp_path / "float" / "model.safetensors").stat().st_size == (source / "model.safetensors").stat().st_size
    assert logits_error(AutoModelForCausalLM.from_pretrained(tmp_path / "float").eval(), network) == 0
    network(torch.arange(9)[None], labels=torch.arange(9)[None]).loss.backward()
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    assert torch.equal(half.model.tokens.weight, network.model.tokens.weight.bfloat16())


def test_other_commands_take_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from merino_net import generate

    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8", "--embedding")
    assert "whole file" in capsys.readouterr().out
    assert generate.main([str(folder), "--prompt", "The river", "--tokens", "4"]) == 0


def test_a_fresh_process_needs_nothing_but_merino_net(source: Path, tmp_path: Path) -> None:
    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8", "--embedding")
    # Transformers goes on with random weights where it does not know a format.
    program = f"""
import merino_net
_, report = merino_net.MerinoForCausalLM.from_pretrained({str(folder)!r}, output_loading_info=True)
assert not report["missing_keys"], report
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr


def test_the_same_command_again_replaces_its_result_and_nothing_else(source: Path, tmp_path: Path) -> None:
    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8")
    first = (folder / "model.safetensors").read_bytes()
    run(source, folder, "--method", "rtn", "--bits", "8")
    assert (folder / "model.safetensors").read_bytes() == first
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which this command did not write"):
        run(source, folder, "--method", "rtn", "--bits", "4")
    assert (folder / "model.safetensors").read_bytes() == first


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["rtn", "--bits", "4"], "groups of 64 do not divide a width of 96; all widths of this network are multiples of 32"),
        (["rtn", "--bits", "8", "--group-size", "0"], "group_size is 0"),
        (["rtn", "--bits", "8", "--text", "x"], "rtn needs no --text"),
        (["gptq", "--bits", "8"], "gptq calibrates on a text; name it with --text"),
        (["nncf", "--bits", "8", "--embedding", "4"], "nncf with 8 bits"),
    ],
)
def test_mistakes_are_said_in_a_sentence(source: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(source, tmp_path / "out", "--method", *flags)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_none(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        run(tmp_path / "none", tmp_path / "out", "--method", "rtn", "--bits", "8")
    with pytest.raises(ValueError, match="is the model's own folder"):
        run(source, source, "--method", "rtn", "--bits", "8")
    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8")
    with pytest.raises(ValueError, match="is quantized already"):
        run(folder, tmp_path / "twice", "--method", "rtn", "--bits", "8")
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    neox = AutoModelForCausalLM.from_config(GPTNeoXConfig(vocab_size=VOCABULARY, **sizes))
    neox.save_pretrained(tmp_path / "neox")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "neox")
    with pytest.raises(ValueError, match="is a gpt_neox model"):
        run(tmp_path / "neox", tmp_path / "other", "--method", "rtn", "--bits", "8")


def test_a_damaged_file_is_not_loaded(source: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = run(source, tmp_path / "out", "--method", "rtn", "--bits", "8")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.blocks.0.layers.0.ffn.up.weight_scale"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"."):
        load(folder)


def test_calibration_is_drawn_by_its_seed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(TEXT * 40))
    tokenizer = train_tokenizer(TEXT * 3, VOCABULARY)

    def drawn(sequences: int, seed: int) -> np.ndarray:
        return calibration_sequences(Text((str(tmp_path / "text.txt"),)), tokenizer, sequences, 16, seed, tmp_path / "cache")[0]

    assert drawn(8, 0).shape == (8, 16)
    assert (drawn(8, 0) == drawn(8, 0)).all()
    assert (drawn(8, 0) != drawn(8, 1)).any()
    with pytest.raises(ValueError, match=r"fewer than the 9,?999 to calibrate on"):
        drawn(9999, 0)


@pytest.mark.skipif(HAS_GPTQ, reason="llmcompressor is installed here")
def test_what_is_missing_is_said_in_a_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="make quantize-environment"):
        run(source, tmp_path / "out", "--method", "gptq", "--bits", "8", "--text", "x")


@needs_nncf
@pytest.mark.slow
def test_openvino_computes_nearly_the_same_from_a_smaller_file(source: Path, tmp_path: Path) -> None:
    from merino_net.shipping.openvino_model import OpenVinoModel

    folder = run(source, tmp_path / "out", "--method", "nncf", "--bits", "4", "--group-size", "32")
    assert (folder / "openvino_model.bin").stat().st_size < 0.3 * (source / "model.safetensors").stat().st_size
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 20))
    graph = OpenVinoModel(folder, threads=1)
    graph.begin()
    with torch.inference_mode():
        truth = load(source)(torch.from_numpy(tokens)).logits.numpy()
    difference = graph.logits(tokens, np.ones_like(tokens)) - truth
    assert 0 < np.linalg.norm(difference) / np.linalg.norm(truth) < 0.3


def calibration_tokens(sequences: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (sequences, POSITIONS))


def with_weights(network: Any, found: dict[str, Any]) -> Any:
    """The network with the quantized weights in place of its own."""
    state = {**network.state_dict(), **{name: restored(quantized) for name, quantized in found.items()}}
    other = AutoModelForCausalLM.from_config(network.config).eval()
    other.load_state_dict(state)
    return other


@needs_gptq
def test_gptq_rounds_on_the_same_grid_as_rounding_to_nearest(source: Path) -> None:
    from merino_net.shipping.quantize_gptq import gptq

    network = load(source)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    for bits, group in ((4, 32), (8, None)):
        names = linear_maps(network)
        tokenizer = train_tokenizer(TEXT * 3, VOCABULARY)
        found = gptq(network, tokenizer, calibration_tokens(), names, bits, group)
        assert set(found) == {f"{name}.weight" for name in names}
        for name, (integers, scales) in found.items():
            weight = before[name]
            assert integers.shape == weight.shape
            assert torch.equal(scales, scales_of(weight, bits, group)), name
            assert not torch.equal(integers, round_to_nearest(weight, bits, group)[0]), name
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


@needs_gptq
def test_a_shared_layer_is_calibrated_over_all_its_applications_and_quantized_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmcompressor.modifiers.gptq import base

    from merino_net.shipping.quantize_gptq import gptq

    accumulate, quantize_weight = base.accumulate_hessian, base.quantize_weight
    seen: Counter[tuple[int, ...]] = Counter()
    rounded: list[tuple[int, ...]] = []

    def counted_accumulate(inputs: Any, module: Any, *rest: Any) -> Any:
        seen[tuple(module.weight.shape)] += 1
        return accumulate(inputs, module, *rest)

    def counted_quantize(**given: Any) -> Any:
        rounded.extend([tuple(weight.shape) for weight in given["weights"]])
        return quantize_weight(**given)

    monkeypatch.setattr(base, "accumulate_hessian", counted_accumulate)
    monkeypatch.setattr(base, "quantize_weight", counted_quantize)
    network = load(source)
    gptq(network, train_tokenizer(TEXT * 3, VOCABULARY), calibration_tokens(4), linear_maps(network), 4, 32)
    first, second, joints = 3 * 4, 2 * 4, 4  # applications of the first and the second block and of a joint, times sequences
    shapes = {(192, 64): first, (64, 64): first, (96, 64): first, (64, 96): first}
    shapes |= {(384, 128): second, (128, 128): second, (64, 128): second + joints, (128, 64): second + joints}
    assert seen == shapes
    maps = [tuple(network.get_submodule(name).weight.shape) for name in linear_maps(network)]
    assert sorted(rounded) == sorted(maps)


@needs_gptq
def test_gptq_of_shared_layers_is_better_than_rounding_and_than_going_from_call_to_call(source: Path) -> None:
    from merino_net.shipping.quantize_gptq import gptq

    network = load(source)
    names, tokenizer = linear_maps(network), train_tokenizer(TEXT * 3, VOCABULARY)
    nearest = {f"{name}.weight": round_to_nearest(network.get_submodule(name).weight.detach(), 4, 32) for name in names}
    errors = {"nearest": logits_error(with_weights(network, nearest), network)}
    for pipeline in ("basic", "sequential"):
        found = gptq(network, tokenizer, calibration_tokens(), names, 4, 32, pipeline=pipeline)
        errors[pipeline] = logits_error(with_weights(network, found), network)
    assert errors["basic"] < 0.7 * errors["nearest"]
    assert errors["basic"] < 0.8 * errors["sequential"]


@needs_gptq
def test_gptq_from_the_command_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(TEXT * 40))
    flags = ["--method", "gptq", "--bits", "4", "--group-size", "32", "--embedding", "--text", str(tmp_path / "text.txt")]
    flags += ["--sequences", "16", "--sequence", "32", "--cache", str(tmp_path / "cache")]
    folder = run(source, tmp_path / "out", *flags)
    network, reference = load(folder), load(source)
    assert network.lm_head.weight is network.model.tokens.weight
    assert part_bytes(folder)["file"] < 0.25 * part_bytes(source)["file"]
    assert 0 < logits_error(network, reference) < 0.5
    record = read_quantize_record(folder)
    assert record is not None
    assert record["calibration"] | {"text_sha256": ""} == {"text_sha256": "", "sequences": 16, "seq_len": 32, "seed": 0}
    again = run(source, tmp_path / "again", *flags)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@needs_gptq
def test_integers_are_those_of_the_library() -> None:
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize as library_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = torch.randn(32, 96, generator=torch.Generator().manual_seed(0))
    for bits, size in ((4, 32), (8, 96)):
        grid = QuantizationArgs(num_bits=bits, symmetric=True, strategy="group", group_size=size, scale_dtype=torch.float16)
        groups = weight.unflatten(-1, (-1, size))
        scales, zeros = calculate_qparams(groups.amin(-1), groups.amax(-1), grid)
        integers, own_scales = round_to_nearest(weight, bits, size)
        assert torch.equal(own_scales.float(), scales.float())
        assert torch.equal(integers, library_quantize(weight, scales.float(), zeros, grid, dtype=torch.int8))
