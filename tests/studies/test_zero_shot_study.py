"""The zero-shot study: the published figures, what they are worth, and models measured beside them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from formulation.published import PUBLISHED_MS
from hardware_models import Flops
from merino_net import evaluate
from merino_net.scoring.zero_shot import TASKS, local_examples
from studies.zero_shot import study as zero_shot
from studies.zero_shot.findings import findings, notes
from studies.zero_shot.levels import (
    attainable,
    averages_that_differ,
    beyond,
    level_of,
    mean_error,
    metric_evidence,
    published_comparisons,
    standard_error,
)
from studies.zero_shot.published import PAPER_TASKS, PUBLIC_RESULTS, PUBLISHED_SCORES
from studies.zero_shot.table import chance_levels, published_lines, scores_table
from tests.merino_net.test_net_evaluate import END_OF_TEXT, FILES, TEXT, merino, write_lines

ROOT = Path(__file__).resolve().parents[2]


# The published figures


def test_the_tasks_are_those_that_are_measured() -> None:
    assert list(PAPER_TASKS) == list(TASKS)
    assert [(task.title, task.examples) for task in PAPER_TASKS.values()] == [
        (task.title, task.examples) for task in TASKS.values()
    ]


def test_every_published_system_has_all_figures() -> None:
    assert list(PUBLISHED_SCORES) == list(PUBLISHED_MS)
    for scores in PUBLISHED_SCORES.values():
        assert len(scores.accuracies) == len(PAPER_TASKS)
        assert all(0 < accuracy < 1 for accuracy in scores.accuracies)


def test_printed_averages_are_the_means_of_the_accuracies_but_for_one() -> None:
    assert set(averages_that_differ()) == {"OPT-125M"}
    assert averages_that_differ()["OPT-125M"] == (0.373, pytest.approx(0.37425))
    for name, scores in PUBLISHED_SCORES.items():
        if name != "OPT-125M":
            assert round(fmean(scores.accuracies), 3) == pytest.approx(scores.average, abs=5e-4)


def test_public_results_point_to_one_metric_a_task() -> None:
    """acc_norm lies nearer wherever both are public, and acc is excluded on OpenBookQA, of which acc alone is."""
    for result in PUBLIC_RESULTS:
        published = PUBLISHED_SCORES[result.system].accuracies[list(PAPER_TASKS).index(result.task)]
        if result.acc_norm is not None:
            assert PAPER_TASKS[result.task].metric == "acc_norm"
            assert abs(published - result.acc_norm) < abs(published - result.acc)
    found = {record["task"]: record for record in metric_evidence()}
    assert set(found) == {name for name, task in PAPER_TASKS.items() if task.metric == "acc_norm"} | {"hellaswag"}
    assert found["openbookqa"]["acc"] > 0.1
    assert found["openbookqa"]["acc_norm"] is None
    assert {name: record["unexplained"] for name, record in found.items() if record["unexplained"]} == {
        "hellaswag": ["OPT-125M", "OPT-350M"]
    }


def test_where_the_published_flops_count_the_head() -> None:
    heads = {name: one["head"] for name, one in findings({})["head_counted"].items()}
    assert heads == {
        **dict.fromkeys(PUBLISHED_SCORES, False),
        **dict.fromkeys(("Pythia-70M", "Cerebras-111M", "GPT-2-124M"), True),
        "Pythia-162M": None,
    }


def test_most_differences_of_means_are_within_their_error() -> None:
    comparisons = {(one["model"], one["baseline"]): one for one in published_comparisons()}
    assert len(comparisons) == 18
    one = comparisons["MeRino-64M", "OPT-350M"]
    assert one["within_error"]
    assert one["error"] == pytest.approx(0.00818, abs=1e-5)
    assert {pair for pair, one in comparisons.items() if one["differs"]} == {
        ("MeRino-52M", "Pythia-162M"),
        ("MeRino-52M", "OPT-350M"),
        ("MeRino-64M", "Pythia-70M"),
        ("MeRino-64M", "OPT-125M"),
    }


def test_figures_that_no_number_of_right_answers_gives() -> None:
    odd = {(one["system"], one["task"]) for one in findings({})["no_count_of_examples_gives"]}
    assert odd == {
        ("Pythia-70M", "pubmedqa"),
        ("GPT-2-124M", "cb"),
        ("GPT-2-124M", "logiqa"),
        ("MeRino-52M", "pubmedqa"),
        ("MeRino-64M", "openbookqa"),
    }


# What an accuracy is worth


@given(examples=st.integers(1, 2000), data=st.data())
def test_a_count_of_right_answers_is_attainable(examples: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, examples))
    assert attainable(round(right / examples, 3), examples)


def test_standard_errors() -> None:
    assert standard_error(0.5, 101) == pytest.approx(0.05)
    assert standard_error(1.0, 1) is None
    assert mean_error([0.5, 0.5], [101, 101]) == pytest.approx(0.05 / math.sqrt(2))
    assert mean_error([0.5, 1.0], [101, 1]) is None


@given(level=st.floats(0.05, 0.95), examples=st.integers(1, 10_000), accuracy=st.floats(0, 1))
def test_beyond_a_level(level: float, examples: int, accuracy: float) -> None:
    assert beyond(level, level, examples) == 0
    sign = beyond(accuracy, level, examples)
    assert sign in (-1, 0, 1)
    assert sign * (accuracy - level) >= 0
    if sign:
        assert beyond(accuracy, level, 4 * examples) == sign, "more examples distinguish them, too"


@pytest.mark.parametrize("name", TASKS)
def test_levels_of_the_hand_made_examples(name: str, tmp_path: Path) -> None:
    file, (lines, requests) = FILES[name]
    level = level_of(name, local_examples(name, write_lines(tmp_path / file, lines)))
    assert level.examples == len(requests)
    assert level.chance == pytest.approx(fmean(1 / len(options) for options, _ in requests))
    rights = [right for _, right in requests]
    options = max(len(pairs) for pairs, _ in requests)
    assert level.constants == pytest.approx(tuple(rights.count(place) / len(rights) for place in range(options)))
    assert level.best_constant == max(rights.count(place) for place in rights) / len(rights)
    assert {len(pairs) for pairs, _ in requests} <= {2, 3, PAPER_TASKS[name].options}


# The command


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks and a benchmark, made by hand."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("arc_easy", "rte"):
        write_lines(folder / FILES[name][0], FILES[name][1][0])
    (folder / "ptb.test.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with a tokenizer of single bytes."""
    folder = tmp_path_factory.mktemp("network")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate([END_OF_TEXT, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    merino().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT).save_pretrained(folder)
    return folder


def run(output: Path, *arguments: Any) -> tuple[int, dict[str, Any]]:
    code = zero_shot.main(["--output", str(output), *map(str, arguments)])
    return code, json.loads((output / "summary.json").read_text())


def test_the_published_table_needs_no_torch(tmp_path: Path) -> None:
    program = f"""
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.exit("torch was imported")
sys.meta_path.insert(0, Watch())
from studies.zero_shot.study import main
sys.exit(main(["--output", {str(tmp_path)!r}]))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"table.md", "summary.json", "zero_shot.png"}
    rows = re.findall(r"^\| (.+?) \| paper \|(.+)\|$", (tmp_path / "table.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(PUBLISHED_SCORES)
    assert {len(cells.split("|")) for _, cells in rows} == {5 + len(PAPER_TASKS) + 4}
    for name, cells in rows:
        shown = [float(cell.strip(" ()")) for cell in cells.split("|")]
        scores = PUBLISHED_SCORES[name]
        assert shown[2:5] == [PUBLISHED_MS[name], scores.wikitext2, scores.ptb]
        assert tuple(shown[5:17]) == scores.accuracies


def test_models_are_measured_beside_the_published_once(
    tmp_path: Path, network: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [network, "--benchmark", "ptb", "--tasks", "arc_easy", "rte", "--data-dir", data_dir, "--device", "cpu"]
    code, summary = run(tmp_path, *arguments)
    assert code == 0
    line = summary["systems"][-1]
    assert (line["name"], line["measured"], line["mean"]) == (network.name, True, None)
    rows = [json.loads(row) for row in (tmp_path / "rows.jsonl").read_text().splitlines()]
    measured = {row["measured"].get("task", row["measured"].get("text")): row["measured"] for row in rows}
    assert line["perplexities"] == {"ptb": measured["ptb"]["token_perplexity"]}
    assert line["accuracies"] == {"arc_easy": measured["arc_easy"]["acc_norm"], "rte": measured["rte"]["acc"]}
    errors = {"arc_easy": measured["arc_easy"]["acc_norm_stderr"], "rte": measured["rte"]["acc_stderr"]}
    assert line["standard_errors"] == pytest.approx(errors), "the harness's own"
    assert line["flops"] == Flops(1024)(merino().config.to_architecture())
    assert summary["provenance"]["versions"].keys() >= {"torch", "lm_eval"}
    shown = capsys.readouterr().out
    assert f"\n{network.name}, ±" in shown
    assert "ARC-E 2 of 2,376" in shown

    def load(*_: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(evaluate, "load_model", load)
    assert run(tmp_path, *arguments)[1]["systems"] == summary["systems"]
    assert not [line for line in run(tmp_path)[1]["systems"] if line["measured"]]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_levels_come_from_the_data_that_are_there(tmp_path: Path, data_dir: Path) -> None:
    _, summary = run(tmp_path, "--data-dir", data_dir)
    tasks = {task["task"]: task for task in summary["tasks"]}
    assert tasks["rte"]["constant_answers"] == [0.5, 0.5]
    assert tasks["arc_easy"]["guessing"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert tasks["boolq"]["constant_answers"] is None
    assert summary["findings"]["mean_of_the_best_constants"] is None


def test_the_notes_say_what_was_found() -> None:
    levels = {name: level_of(name, [EXAMPLES[name]]) for name in ("boolq", "wsc")}
    text = "\n".join(notes(findings(levels), levels))
    for wanted in (
        "acc_norm on ARC-E, ARC-C, OBQA, LogiQA",
        "the printed average of OPT-125M, 0.373, is not the mean of its accuracies",
        "MeRino-64M − OPT-350M +0.000",
        "CB (56 examples) and WSC (104 examples) make 69 % of the variance",
        "BoolQ 1 of 3,270",
        "Pythia-162M fits neither",
    ):
        assert wanted in text


EXAMPLES: dict[str, dict[str, Any]] = {"boolq": {"label": 1}, "wsc": {"label": 0}}


def test_the_table_puts_in_parentheses_what_guessing_explains() -> None:
    header, rows = scores_table(published_lines(), {})
    assert {len(row) for row in rows} == {len(header)}
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert shown["Pythia-70M"]["OBQA"] == "(0.272)"
    assert shown["Pythia-70M"]["WSC"] == "0.365"
    assert (shown["Pythia-70M"]["above"], shown["Pythia-70M"]["below"]) == ("5", "2")
    assert shown["guessing"]["mean"] == f"{fmean(chance_levels({}).values()):.3f}"
    assert shown["above it, of 9"]["BoolQ"] == "9"


def test_options_are_those_of_the_evaluation() -> None:
    """Its functions read them: the same names and defaults, but that all is measured where nothing is said."""
    own, other = vars(zero_shot.command_line().parse_args([])), vars(evaluate.command_line().parse_args(["model"]))
    assert own.keys() == other.keys()
    assert {name for name in own if own[name] != other[name]} == {"models", "benchmark", "tasks", "output"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["--data-dir", "EMPTY"], "holds none of the tasks' files"),
        (["no/such/folder", "--tasks", "rte", "--benchmark", "--data-dir", "DATA"], "there is no folder no/such/folder"),
        (["model", "--tasks", "mmlu"], "--tasks mmlu is not known"),
        (["model", "--tasks", "--benchmark"], "nothing to measure"),
        (["model", "--limit", "0"], "--limit is 0; expected at least 1"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, data_dir: Path, arguments: list[str], message: str) -> None:
    places = {"EMPTY": str(tmp_path), "DATA": str(data_dir)}
    with pytest.raises(ValueError, match=message):
        zero_shot.main(["--output", str(tmp_path), *(places.get(one, one) for one in arguments)])
    assert not (tmp_path / "table.md").exists()
