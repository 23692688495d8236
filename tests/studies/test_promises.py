"""A design's budgets follow its network: through training, quantizing, exporting and --verify."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from formulation import Architecture, Block, Budget
from formulation.command.exit_code import ExitCode
from hardware_models import Flops, Params, WeightMemory
from hardware_models.names import read_quantity
from merino_net import MerinoConfig, export, quantize
from merino_net.corpus.data import train_tokenizer
from merino_net.network.counting import parameter_count, part_bytes, stored_parameters
from merino_net.shipping.model_card import model_card
from merino_net.shipping.promises import Made, Outcome, Promise, differences, exit_code, read_promises, table
from merino_net.train import main as train
from studies.design.study import main as design
from studies.ship import promised as ship

VOCABULARY, POSITIONS = 300, 32
SPACE = {
    "blocks": 2,
    "widths": [64, 128],
    "ffn_ratios": [1],
    "depths": [1, 2],
    "embedding_width": 64,
    "vocabulary": VOCABULARY,
    "positions": POSITIONS,
}
WORDS = "the merino is a sheep whose wool is soft and a model is a map of words to words while a proof is a bound"


def designed(folder: Path, *budgets: dict[str, Any]) -> Path:
    """A run folder that holds a design for these budgets; its design.json."""
    problem = {"format": "merino problem", "version": 2, "space": SPACE, "maximize": "entropy", "budgets": list(budgets)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "problem.json").write_text(json.dumps(problem))
    output = ["--output", str(folder), "--alternatives", "0", "--steps", "0"]
    assert design([str(folder.parent / "problem.json"), *output]) == 0
    return folder / "design.json"


def record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def architecture_in(path: Path) -> Architecture:
    return Architecture.from_dict(record(path)["architecture"])


PARAMS = {"quantity": "params", "upper": 120e3}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A design within 120,000 parameters."""
    return designed(tmp_path_factory.mktemp("plain") / "design", PARAMS)


def run(design_file: Path, folder: Path, *flags: str, text: str | None = None) -> tuple[int, Path]:
    """Train for two steps on a small text; the exit code and the folder of the network."""
    (folder / "text.txt").write_text(text or "\n".join(f"{WORDS} {number}" for number in range(300)), encoding="utf-8")
    sizes = ["--steps", "2", "--batch", "2", "--sequence", "16", "--precision", "float32", "--peak-tflops", "1"]
    places = ["--text", str(folder / "text.txt"), "--cache", str(folder / "cache"), "--output", str(folder / "network")]
    return train([str(design_file), *sizes, *places, *flags]), folder / "network"


def placed(folder: Path, design_file: Path, architecture: Architecture) -> Path:
    """A run folder with the random network of an architecture beside a design."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(architecture)).save_pretrained(folder)
    train_tokenizer([WORDS] * 30, 258).save_pretrained(folder)
    if design_file.parent != folder:
        shutil.copyfile(design_file, folder / "design.json")
    return folder


# --- Training -----------------------------------------------------------------------------------------------------------------


def test_the_network_and_its_tokenizer_have_the_vocabulary_of_the_design(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = run(plain, tmp_path)
    assert code == 0
    network = AutoModelForCausalLM.from_pretrained(folder)
    assert network.config.to_architecture() == architecture_in(plain)
    assert len(AutoTokenizer.from_pretrained(folder)) == network.config.vocab_size == VOCABULARY
    [budget] = record(folder / "training.json")["budgets"]
    assert budget == {
        "name": "params",
        "unit": "parameters",
        "limit": 120e3,
        "value": parameter_count(network),
        "measured": True,
        "at_least": False,
        "verdict": "within",
    }
    assert budget["value"] == Params()(architecture_in(plain)) <= 120e3
    shown = capsys.readouterr().out
    assert f"{parameter_count(network):,}  ≤ 120,000  within" in shown
    assert "differs from the design" not in shown


def test_a_budget_from_below_is_a_promise_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design_file = designed(tmp_path / "design", {"quantity": "params", "at_least": 60e3, "upper": 120e3})
    code, folder = run(design_file, tmp_path)
    assert code == 0
    limits = [(one["limit"], one["at_least"], one["verdict"]) for one in record(folder / "training.json")["budgets"]]
    assert limits == [(120e3, False, "within"), (60e3, True, "within")]
    assert "≥ 60,000  within" in capsys.readouterr().out
    (promise,) = (one for one in read_promises(design_file) if one.at_least)
    small = Made(MerinoConfig.from_architecture(architecture_in(design_file)), parameters=50_000, weight_bytes=0)
    assert promise.outcome(small).exceeds
    assert "falls short of the design's budget of 60,000" in str(promise.outcome(small))


def test_without_a_text_the_documentation_gets_the_vocabulary_of_the_design(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = {str(number): f"{WORDS} {number}" for number in range(300)}
    monkeypatch.setattr("pydoc_data.topics.topics", topics)
    sizes = ["--steps", "2", "--batch", "2", "--sequence", "16", "--precision", "float32", "--peak-tflops", "1"]
    places = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "network")]
    assert train([str(plain), *sizes, *places]) == 0
    assert Made.stored(tmp_path / "network").architecture == architecture_in(plain)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "network")) == VOCABULARY


def test_a_text_too_small_for_the_vocabulary_says_what_it_supports(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocabulary of 2\d\d tokens.* 300 .*--vocabulary 2\d\d"):
        run(plain, tmp_path, text="the wool of the merino is soft " * 40)
    assert not (tmp_path / "network" / "config.json").exists()


def test_a_larger_vocabulary_that_exceeds_a_budget_is_not_trained(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = run(plain, tmp_path, "--vocabulary", "4000")
    assert code == ExitCode.BROKEN_PROMISE
    larger = Params()(dataclasses.replace(architecture_in(plain), vocabulary=4000))
    said = capsys.readouterr().err
    assert f"params is {larger:,.0f} parameters, which exceeds the design's budget of 120,000" in said
    assert "leave --vocabulary out" in said
    assert not folder.exists()


def test_another_vocabulary_within_the_budgets_is_reported(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = run(plain, tmp_path, "--vocabulary", "280")
    assert code == 0
    assert "the network differs from the design: vocabulary is 280 and not 300" in capsys.readouterr().out
    [budget] = record(folder / "training.json")["budgets"]
    assert budget["value"] == Params()(dataclasses.replace(architecture_in(plain), vocabulary=280))


def test_a_budget_that_a_network_cannot_show_is_not_known_for_another_vocabulary(tmp_path: Path) -> None:
    path = designed(tmp_path / "design", {"quantity": "cache-memory", "upper": 1e9})
    with pytest.raises(ValueError, match=r"cache memory .*vocabulary of 300 .*310"):
        run(path, tmp_path, "--vocabulary", "310")
    code, folder = run(path, tmp_path, "--vocabulary", "290")
    assert code == 0
    [budget] = record(folder / "training.json")["budgets"]
    assert (budget["value"], budget["measured"], budget["verdict"]) == (None, False, "not known")


def test_a_design_file_that_breaks_its_own_budget_is_not_trained(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = record(plain)
    edited["problem"]["budgets"][0]["upper"] = 1000.0
    (tmp_path / "design.json").write_text(json.dumps(edited))
    assert run(tmp_path / "design.json", tmp_path)[0] == ExitCode.BROKEN_PROMISE
    assert "the design file does not keep its own budgets" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one["problem"].pop("budgets"),
        lambda one: one["problem"]["budgets"].append({}),
        lambda one: one["problem"]["budgets"][0].update(upper="many"),
        lambda one: one["problem"]["budgets"][0].update(upper=1e999),
        lambda one: one["solution"].update(usage=[None]),
        lambda one: one["problem"]["budgets"][0].update(quantity="flops", seq_len="many", head=True),
        lambda one: one["problem"]["budgets"][0].update(quantity="weight-memory", bits="8"),
        lambda one: one.update(problem=[]),
    ],
)
def test_damaged_budgets_are_a_sentence(plain: Path, tmp_path: Path, damage: Any) -> None:
    edited = record(plain)
    damage(edited)
    (tmp_path / "design.json").write_text(json.dumps(edited))
    with pytest.raises(ValueError, match=r"design .*design\.json (are damaged|holds the value Infinity)"):
        read_promises(tmp_path / "design.json")


def test_what_has_no_budgets_promises_nothing(tmp_path: Path) -> None:
    assert read_promises(tmp_path / "none.json") == ()
    (tmp_path / "bare.json").write_text(Architecture((Block(64, 64, 1),)).to_json())
    assert read_promises(tmp_path / "bare.json") == ()
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_promises(tmp_path / "cut.json")


# --- What a network shows of itself -------------------------------------------------------------------------------------------


def test_a_network_shows_what_its_cost_models_predict(tmp_path: Path) -> None:
    flops = {"quantity": "flops", "seq_len": 32, "head": True, "upper": 1e9}
    memory = {"quantity": "weight-memory", "upper": 1e7}
    path = designed(tmp_path / "design", PARAMS, flops, memory, {"quantity": "cache-memory", "upper": 1e9})
    architecture = architecture_in(path)
    placed(tmp_path / "design", path, architecture)
    made = Made.stored(tmp_path / "design")
    assert made == dataclasses.replace(Made.planned(made.config), config=made.config)
    outcomes = [promise.outcome(made) for promise in read_promises(path)]
    truths = [Params(), Flops(32, True), WeightMemory()]
    assert [one.value for one in outcomes[:3]] == [quantity(architecture) for quantity in truths]
    assert [one.verdict for one in outcomes] == ["within", "within", "within", "within, predicted"]


def test_limits_and_functions_may_be_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    made = Made.planned(MerinoConfig.from_architecture(Architecture((Block(64, 64, 1),), True, 64, 300, 32)))

    def outcome(limit: float, measured: float | None, predicted: float | None) -> Outcome:
        return Promise("latency", "ms", limit, lambda _: measured, lambda _: predicted).outcome(made)

    kept = [outcome(50, 50, 99), outcome(50, None, 49), outcome(50, None, None), outcome(0.1 + 0.2, 0.3 + 1e-16, None)]
    assert [one.verdict for one in kept] == ["within", "within, predicted", "not known", "within"]
    assert exit_code(kept) == 0
    broken = [outcome(50, 51, 1), outcome(50, None, 51), outcome(50, float("nan"), None)]
    assert [one.verdict for one in broken] == ["exceeds", "exceeds, predicted", "exceeds"]
    assert exit_code([*kept, *broken]) == ExitCode.BROKEN_PROMISE == 3
    assert (
        capsys.readouterr().err.splitlines()[0] == "a promise is broken: latency is 51 ms, which exceeds the design's budget of 50"
    )
    assert "51   ≤ 50  exceeds, predicted" in table(broken)


def test_stored_parameters_are_those_of_the_network_whatever_the_bits(plain: Path, tmp_path: Path) -> None:
    source = placed(tmp_path / "source", plain, architecture_in(plain))
    truth = parameter_count(AutoModelForCausalLM.from_pretrained(source))
    assert stored_parameters(source, MerinoConfig.from_pretrained(source)) == truth
    for bits, flags in (("8", ["--embedding"]), ("4", []), ("4", ["--embedding", "4"])):
        output = tmp_path / f"{bits}{len(flags)}"
        assert quantize.main([str(source), "--method", "rtn", "--bits", bits, *flags, "--output", str(output)]) == 0
        made = Made.stored(output)
        assert (made.parameters, made.quantized) == (truth, True)
        assert made.weight_bytes < 3 * truth


def test_differences_are_phrases() -> None:
    one = Architecture((Block(64, 64, 1),), True, 64, 300, 32)
    assert differences(one, one) == []
    other = Architecture((Block(64, 64, 2),), False, 128, 1300, 64)
    assert differences(one, other) == [
        f"the blocks are {other.blocks[0]} and not {one.blocks[0]}",
        "vocabulary is 1,300 and not 300",
        "positions is 64 and not 32",
        "embedding width is 128 and not 64",
        "weight sharing is False and not True",
    ]


# --- Quantizing and exporting -------------------------------------------------------------------------------------------------


def test_a_promise_of_8_bits_is_measured_once_the_network_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = {"quantity": "weight-memory", "bits": 8, "upper": 125e3}
    path = designed(tmp_path / "design", budget)
    source = placed(tmp_path / "source", path, architecture_in(path))
    [before] = [promise.outcome(Made.stored(source)) for promise in read_promises(path)]
    assert (before.name, before.verdict) == ("weight memory in 8 bits", "within, predicted")
    command = [str(source), "--method", "rtn", "--bits", "8", "--output"]
    # The embedding stays in 32 bits: more than was promised, and not what the design's cost model counts.
    assert quantize.main([*command, str(tmp_path / "half")]) == ExitCode.BROKEN_PROMISE
    [outcome] = record(tmp_path / "half" / "quantize.json")["budgets"]
    sizes = part_bytes(tmp_path / "half")
    assert outcome["value"] == sum(sizes.values()) - sizes["file"] > 125e3
    assert outcome["verdict"] == "exceeds"
    assert (
        f"weight memory in 8 bits is {outcome['value']:,} bytes, which exceeds the design's budget of 125,000"
        in capsys.readouterr().err
    )
    assert quantize.main([*command, str(tmp_path / "whole"), "--embedding"]) == 0
    [outcome] = record(tmp_path / "whole" / "quantize.json")["budgets"]
    assert (outcome["verdict"], outcome["measured"]) == ("within", True)
    # What is measured includes the scales, which the design's own count leaves out.
    assert WeightMemory(8)(architecture_in(path)) < outcome["value"] <= 125e3


def test_the_card_says_within_or_exceeds_with_both_numbers(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design_of = architecture_in(plain)
    source = placed(tmp_path / "source", plain, design_of)
    assert export.main([str(source), "--output", str(tmp_path / "kept"), "--to", "hf"]) == 0
    used = Params()(design_of)
    assert f"| params | parameters | {used:,.0f} | ≤ 120,000 | **within** |" in (tmp_path / "kept" / "README.md").read_text()

    larger = dataclasses.replace(design_of, vocabulary=4000)
    source = placed(tmp_path / "larger", plain, larger)
    assert export.main([str(source), "--output", str(tmp_path / "broken"), "--to", "hf"]) == ExitCode.BROKEN_PROMISE
    card = (tmp_path / "broken" / "README.md").read_text()
    assert f"| params | parameters | {Params()(larger):,.0f} | ≤ 120,000 | **exceeds** |" in card
    assert "vocabulary is 4,000 and not 300" in card
    assert record(tmp_path / "broken" / "export.json")["budgets"][0]["verdict"] == "exceeds"
    assert "exceeds the design's budget of 120,000" in capsys.readouterr().err


def test_the_card_lists_what_only_a_cost_model_knows_as_predicted(tmp_path: Path) -> None:
    path = designed(tmp_path / "design", {"quantity": "cache-memory", "upper": 1e9})
    source = placed(tmp_path / "source", path, architecture_in(path))
    assert export.main([str(source), "--output", str(tmp_path / "out"), "--to", "hf"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| ≤ 1,000,000,000 | **within, predicted** |" in card
    assert "called predicted are a cost model's" in card
    assert "What the network in this folder has of them" not in model_card(source)  # nothing was compared there


def test_each_exported_form_has_bytes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_model = pytest.importorskip("merino_net.shipping.onnx_model")

    def trace(model: Any, folder: Path, weights: str) -> None:  # a stand-in: tracing takes seconds
        (folder / "model.onnx").touch()
        (folder / "model.onnx.data").write_bytes(bytes(600_001))

    monkeypatch.setattr(onnx_model, "export_onnx", trace)
    monkeypatch.setattr(onnx_model, "compare_onnx", lambda model, folder, weights: {"prefill": 0.0})
    path = designed(tmp_path / "design", {"quantity": "weight-memory", "upper": 600e3})
    source = placed(tmp_path / "source", path, architecture_in(path))
    assert export.main([str(source), "--output", str(tmp_path / "out")]) == ExitCode.BROKEN_PROMISE
    torch_form, onnx_form = record(tmp_path / "out" / "export.json")["budgets"]
    assert (torch_form["name"], onnx_form["name"]) == ("weight memory", "weight memory, onnx")
    assert torch_form["value"] == WeightMemory()(architecture_in(path))
    assert (torch_form["verdict"], onnx_form["verdict"], onnx_form["value"]) == ("within", "exceeds", 600_001)


# --- Verifying a run folder ---------------------------------------------------------------------------------------------------


def verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = design(["--verify", str(folder)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_verify_compares_the_files_beside_the_design(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design_of = architecture_in(plain)
    used = int(Params()(design_of))
    folder = placed(tmp_path / "run", plain, design_of)
    for path in (folder, folder / "design.json"):
        code, out, err = verified(path, capsys)
        assert (code, err) == (0, "")
        assert f"{used:,} parameters, a vocabulary of 300." in out
        assert f"{used:,}  ≤ 120,000  within" in out
        assert out.splitlines()[-1].startswith("Verified: ")


def replaced(folder: Path, plain: Path, **changes: Any) -> Path:
    return placed(folder, plain, dataclasses.replace(architecture_in(plain), **changes))


def test_verify_finds_a_network_that_exceeds_a_budget(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = replaced(tmp_path / "run", plain, vocabulary=4000)
    code, out, err = verified(folder, capsys)
    assert code == ExitCode.BROKEN_PROMISE
    assert "which exceeds the design's budget of 120,000" in err
    assert "It differs from the design: vocabulary is 4,000 and not 300." in out
    assert "Verified" not in out


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"blocks": (Block(64, 64, 1), Block(64, 64, 1))}, "the blocks are"), ({"shared": False}, "weight sharing")],
)
def test_verify_finds_another_network(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    code, out, err = verified(replaced(tmp_path / "run", plain, **changes), capsys)
    assert code == ExitCode.BROKEN_PROMISE
    assert f"the network is not the design, {said}" in err
    assert "Verified" not in out


def test_verify_reports_a_smaller_vocabulary(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = verified(replaced(tmp_path / "run", plain, vocabulary=280), capsys)
    assert (code, err) == (0, "")
    assert "It differs from the design: vocabulary is 280 and not 300." in out


def test_verify_refuses_weights_that_are_no_numbers_or_missing(plain: Path, tmp_path: Path) -> None:
    folder = placed(tmp_path / "run", plain, architecture_in(plain))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 of 64 values that are not finite"):
        design(["--verify", str(folder)])
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weight, such as model\.norm\.weight"):
        design(["--verify", str(folder)])


def test_verify_of_a_folder_without_a_network_is_that_of_its_design(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verified(plain.parent, capsys)
    assert code == 0
    assert "The network in" not in out


def test_cost_models_predict_the_network_as_it_was_built() -> None:
    built = Architecture((Block(64, 64, 1),), True, 64, 1300, 32)
    made = Made.planned(MerinoConfig.from_architecture(built))

    budgets = (Budget(Params(), 1e6), Budget(Flops(32), 1e9), Budget(WeightMemory(8), 1e6))
    [params, flops, weights] = [promise.outcome(made) for promise in ship.promises_of(budgets, built)]
    assert (params.value, params.measured) == (Params()(built), True)
    assert (flops.value, flops.measured) == (Flops(32)(built), True)
    assert (weights.value, weights.measured) == (WeightMemory(8)(built), False)
    [latency] = [
        promise.outcome(made) for promise in ship.promises_of((Budget(read_quantity("latency@amd-epyc-2cpu"), 50),), built)
    ]
    assert latency.verdict == "not known"  # the table was validated on networks of another vocabulary
