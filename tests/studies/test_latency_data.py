"""The study of latencies that others measured: what it reads, flags and fits, its device files, what it says to a mistake."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import PUBLISHED
from formulation.command.run import run_command
from formulation.published import PUBLISHED_MS
from hardware_models import Flops
from hardware_models.device import read_device
from hardware_models.fit import assign_folds
from hardware_models.latency import Latency
from studies.latency_data import study as latency_data
from studies.latency_data.devices import as_design, encoder_check, hat_device
from studies.latency_data.hat_file import (
    COLUMNS,
    KNOWN,
    SIDES,
    LatencyData,
    given_facts,
    head_flops,
    layer_flops,
    layer_work,
    measurement_faults,
    read_data,
)
from studies.latency_data.study import ADDITIVE, CEILING

ROWS = 120
FACTS = given_facts("board", "mt", 20, 23, 4, 8000, "measured in a test")
FLAGS = ["--device-name", "board", "--task", "mt", "--tokens", "20", "--steps", "23", "--beam", "4", "--vocabulary", "8000"]


def synthetic(seed: int = 0, rows: int = ROWS, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Columns of random networks on a made-up device whose latency adds up over layers, exactly but for the noise."""
    rng = np.random.default_rng(seed)
    layers = rng.integers(1, 7, rows)
    columns: dict[str, np.ndarray] = {"encoder_layer_num": np.full(rows, 6), "decoder_layer_num": layers}

    def averages(menu: list[int], count: np.ndarray) -> np.ndarray:
        return np.array([rng.choice(menu, each).mean() for each in count])

    for side in ("encoder", "decoder"):
        columns[f"{side}_embed_dim"] = rng.choice([512, 640], rows)
        columns[f"{side}_ffn_embed_dim_avg"] = averages([512, 1024, 2048, 3072], columns[f"{side}_layer_num"])
        columns[f"{side}_self_attention_heads_avg"] = averages([2, 4, 8], columns[f"{side}_layer_num"])
    columns["decoder_ende_attention_heads_avg"] = averages([2, 4, 8], layers)
    columns["decoder_arbitrary_ende_attn_avg"] = averages([1, 2, 3], layers)
    e, f = columns["encoder_embed_dim"], columns["encoder_ffn_embed_dim_avg"]
    columns["latency_mean_encoder"] = 6 * (2.0 + 0.01 * e + 3e-6 * e * f)
    e, f = columns["decoder_embed_dim"], columns["decoder_ffn_embed_dim_avg"]
    columns["latency_mean_decoder"] = 20 + 0.6 * e + layers * (30 + 0.1 * e + 1e-4 * e * f)
    for side in ("encoder", "decoder"):
        columns[f"latency_mean_{side}"] *= np.exp(rng.normal(0, noise, rows))
        columns[f"latency_std_{side}"] = rng.uniform(0, 0.05, rows) * columns[f"latency_mean_{side}"]
    return columns


def write(path: Path, columns: dict[str, np.ndarray]) -> Path:
    lines = [",".join(COLUMNS), *(",".join(f"{columns[name][row]}" for name in COLUMNS) for row in range(len(columns[COLUMNS[0]])))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def data_of(columns: dict[str, np.ndarray]) -> LatencyData:
    return LatencyData(FACTS, "board.csv", "", {name: columns[name].astype(float) for name in COLUMNS})


@pytest.fixture(scope="module")
def few_trees() -> Iterator[None]:
    """A setting of the trees that takes no time; what trees can do is not what is tested."""
    pytest.importorskip("sklearn")
    settings = {"trees": {"learning_rate": 0.3, "max_iter": 10, "max_leaf_nodes": 4, "loss": "squared_error"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency_data, "_TREES", settings)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, few_trees: None) -> Path:
    """What a run with two files writes, one of them with ten faults of each kind."""
    folder = tmp_path_factory.mktemp("study")
    columns = synthetic(1, noise=0.03)
    columns["latency_std_decoder"][:10] = 0.2 * columns["latency_mean_decoder"][:10]
    columns["latency_mean_encoder"][20:30] *= 20
    files = [write(folder / "my board.csv", synthetic()), write(folder / "lab-xeon-gold-6338.csv", columns)]
    arguments = ["--output", str(folder / "out"), "--devices", str(folder / "devices")]
    facts = [*FLAGS, "--task", "mt", "summaries", "--steps", "23", "30", "--source", "measured in a test"]
    latency_data.main([*map(str, files), "--seed", "3", *arguments, *facts])
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))


def error_of(part: dict[str, Any], side: str, rows: str, model: str) -> dict[str, Any]:
    (found,) = (row for row in part["errors"] if (row["side"], row["rows"], row["model"]) == (side, rows, model))
    return found


def leave(capsys: pytest.CaptureFixture[str], main: Callable[..., None], *arguments: Any) -> tuple[Any, str]:
    """Exit code and stderr of a command."""
    with pytest.raises(SystemExit) as left:
        run_command(main, *arguments)
    return left.value.code, capsys.readouterr().err


def test_it_writes_results_figure_and_device_files(folder: Path, record: dict[str, Any]) -> None:
    assert {file.name for file in (folder / "out").iterdir()} == {"results.json", "latency_data.png"}
    assert (folder / "out" / "latency_data.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert {file.name for file in (folder / "devices").iterdir()} == {"board-mt.json", "board-summaries.json"}
    assert set(record) == {"study", "data"}
    assert record["data"]["provenance"]["seed"] == 3
    assert set(record["data"]["provenance"]["versions"]) >= {"python", "numpy", "scipy", "scikit-learn"}
    assert all(len(part["sha256"]) == 64 for part in record["data"]["devices"])
    assert str(folder) not in json.dumps(record)


def test_every_side_selection_and_model_has_its_error(record: dict[str, Any]) -> None:
    for part in record["data"]["devices"]:
        rows = {(row["side"], row["rows"], row["model"]) for row in part["errors"]}
        models = (ADDITIVE, "FLOPs", "FLOPs + constant", "FLOPs with head", "trees", CEILING)
        assert rows == {(side, each, model) for side in SIDES for each in ("all", "unflagged") for model in models}
        assert len(part["goal"]) == 6
        for goal in part["goal"]:
            near = [error_of(part, goal["side"], goal["rows"], model)["within_10"] for model in (CEILING, ADDITIVE)]
            assert goal["points_below_ceiling"] == pytest.approx(100 * (near[0] - near[1]))
            assert goal["within_2_points"] == (goal["points_below_ceiling"] <= 2)


def test_what_adds_up_is_predicted_exactly_and_flops_do_not_suffice(record: dict[str, Any]) -> None:
    exact = record["data"]["devices"][0]
    for side in SIDES:
        assert error_of(exact, side, "all", ADDITIVE)["mape"] < 1e-9
        assert error_of(exact, side, "all", "FLOPs")["mape"] > 0.02


def test_rows_are_flagged_and_left_out_but_never_dropped_silently(record: dict[str, Any]) -> None:
    exact, faulty = record["data"]["devices"]
    assert exact["flagged"] == {"unsteady": 0, "slow": 0, "any": 0}
    assert faulty["flagged"] == {"unsteady": 10, "slow": 10, "any": 20}
    assert error_of(faulty, "encoder", "all", ADDITIVE)["networks"] == ROWS
    clean = error_of(faulty, "encoder", "unflagged", ADDITIVE)
    assert clean["networks"] == ROWS - 20
    assert clean["within_10"] > 0.95 > error_of(faulty, "encoder", "all", ADDITIVE)["within_10"]


def test_a_rule_sees_only_the_row() -> None:
    data = data_of(synthetic(2, noise=0.5))
    some = np.arange(0, len(data), 3)
    for rule, rows in measurement_faults(data).items():
        assert (measurement_faults(data.select(some))[rule] == rows[some]).all()


def test_the_same_seed_gives_the_same_predictions(few_trees: None) -> None:
    data = data_of(synthetic(4, noise=0.1))
    one, other = (latency_data.predictions(data, 5) for _ in range(2))
    for side in SIDES:
        for model, predicted in one[side].items():
            assert (predicted == other[side][model]).all()


def test_the_sum_is_predicted_by_its_sides(few_trees: None) -> None:
    found = latency_data.predictions(data_of(synthetic(6, noise=0.1)), 0)
    assert found["sum"][ADDITIVE] == pytest.approx(found["encoder"][ADDITIVE] + found["decoder"][ADDITIVE])


def test_a_slow_occasion_shows_in_what_is_common_to_a_row(record: dict[str, Any]) -> None:
    columns = synthetic(10, rows=200, noise=0.01)
    for side in ("encoder", "decoder"):
        columns[f"latency_mean_{side}"][:60] *= 1.3
    sessions = latency_data.study_data(data_of(columns), 0)["sessions"]
    assert sessions["encoder_with_decoder"] > 0.9
    assert sessions["decoder_with_next_row"] > 0.9
    unrelated = record["data"]["devices"][1]["sessions"]
    assert abs(unrelated["decoder_with_next_row"]) < 0.4
    assert 0 < sessions["decoder_within_10_by_file_order"] < 1


def test_terms_add_up_over_layers() -> None:
    """Twice the layers of the same averages are twice the work, but for the terms of the pass: 1, and E for the decoder's head."""
    columns = synthetic(7)
    twice = {
        **columns,
        "encoder_layer_num": 2 * columns["encoder_layer_num"],
        "decoder_layer_num": 2 * columns["decoder_layer_num"],
    }
    for side, passes in (("encoder", 1), ("decoder", 2)):
        one, two = layer_work(data_of(columns), side), layer_work(data_of(twice), side)
        assert two[:, passes:] == pytest.approx(2 * one[:, passes:])
        assert two[:, :passes] == pytest.approx(one[:, :passes])


def test_flops_of_an_encoder_are_ours_where_its_attention_is() -> None:
    data = data_of(synthetic(8))
    own = data["encoder_embed_dim"] == 512
    encoder, _ = layer_flops(data)
    ours = [
        Flops(FACTS.tokens)(as_design(*row, 8000))
        for row in zip(data["encoder_embed_dim"], data["encoder_ffn_embed_dim_avg"], data["encoder_layer_num"], strict=True)
    ]
    assert encoder[own] == pytest.approx(np.array(ours)[own])
    assert (encoder[~own] < np.array(ours)[~own]).all()


@given(st.sampled_from([512, 640]), st.lists(st.sampled_from([512, 1024, 2048, 3072]), min_size=1, max_size=6))
def test_a_design_has_the_layers_and_their_sum(width: int, ffn_widths: list[int]) -> None:
    design = as_design(width, float(np.mean(ffn_widths)), len(ffn_widths), 8000)
    assert design.vocabulary == 8000
    assert sum(design.depths) == len(ffn_widths)
    assert sum(block.ffn_width * block.depth for block in design.blocks) == sum(ffn_widths)
    assert not design.shared
    assert not list(design.unequal_neighbours)


def test_device_files_predict_a_step_and_an_encoder(folder: Path) -> None:
    """The made-up device is one whose latency the kinds of work describe exactly, so its files must give it back."""
    device = read_device(str(folder / "devices" / "board-mt.json"))
    assert [table.name for table in device.tables] == ["hat-decode", "hat-prefill"]
    columns = synthetic()
    for table, side, passes in zip(device.tables, ("decoder", "encoder"), (23, 1), strict=True):
        assert table.error is not None
        assert table.error.mape < 0.001
        parts = (columns[f"{side}_{name}"] for name in ("embed_dim", "ffn_embed_dim_avg", "layer_num"))
        predicted = [Latency(table)(as_design(*row, 8000)) for row in zip(*parts, strict=True)]
        assert np.array(predicted) * passes == pytest.approx(columns[f"latency_mean_{side}"], rel=1e-3)
        assert table.validated.layers == ((1, 6) if side == "decoder" else (6, 6))
        assert any("512 wide in HAT" in text for text in table.how["assumptions"])
        assert any("states no lengths" in text for text in table.how["assumptions"])


def test_the_check_by_the_encoder_needs_no_scale() -> None:
    columns = synthetic(9)
    check = encoder_check(data_of(columns))
    assert check["spearman"] > 0.9
    columns["latency_mean_encoder"] *= 7
    other = encoder_check(data_of(columns))
    assert other["factor"] == pytest.approx(7 * check["factor"])
    assert (other["mape"], other["spearman"]) == pytest.approx((check["mape"], check["spearman"]))


def changed(line: int, column: str, value: str) -> Callable[[list[str]], list[str]]:
    """An edit of the lines of a file: one value of one line, counted from 1."""

    def edit(lines: list[str]) -> list[str]:
        cells = lines[line - 1].split(",")
        cells[COLUMNS.index(column)] = value
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return edit


def repeated(lines: list[str]) -> list[str]:
    return [*lines, lines[4]]


def contradicted(lines: list[str]) -> list[str]:
    cells = lines[4].split(",")
    cells[COLUMNS.index("latency_mean_encoder")] = "9999"
    return [*lines, ",".join(cells)]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda lines: [], "wrong.csv is empty; expected a header and a row for each network"),
        (lambda lines: lines[:1], "wrong.csv has 0 rows; expected at least 40"),
        (lambda lines: lines[:11], "wrong.csv has 10 rows; expected at least 40"),
        (
            lambda lines: [lines[0].replace("latency_mean", "mean"), *lines[1:]],
            "wrong.csv lacks the columns latency_mean_encoder, latency_mean_decoder; expected those of HAT's format",
        ),
        (
            lambda lines: [lines[0].replace("decoder_embed_dim", "encoder_embed_dim") + ",decoder_embed_dim", *lines[1:]],
            "wrong.csv has the column encoder_embed_dim twice; expected it once",
        ),
        (
            lambda lines: [*lines[:6], lines[6] + ",1", *lines[7:]],
            "line 7 of wrong.csv has 15 values; expected 14, one for each column",
        ),
        (lambda lines: [*lines, lines[-1][:40]], "line 122 of wrong.csv has"),
        (changed(5, "decoder_embed_dim", "wide"), "line 5 of wrong.csv has decoder_embed_dim 'wide'; expected a number"),
        (changed(5, "latency_std_encoder", ""), "line 5 of wrong.csv has latency_std_encoder ''; expected a number"),
        (
            changed(9, "latency_mean_decoder", "nan"),
            "line 9 of wrong.csv has latency_mean_decoder nan; expected a finite number above 0",
        ),
        (
            changed(9, "latency_mean_decoder", "-3"),
            "line 9 of wrong.csv has latency_mean_decoder -3; expected a finite number above 0",
        ),
        (
            changed(9, "latency_mean_encoder", "0"),
            "line 9 of wrong.csv has latency_mean_encoder 0; expected a finite number above 0",
        ),
        (
            changed(9, "latency_std_decoder", "-1"),
            "line 9 of wrong.csv has latency_std_decoder -1; expected a finite number of at least 0",
        ),
        (
            changed(9, "decoder_layer_num", "2.5"),
            "line 9 of wrong.csv has decoder_layer_num 2.5; expected a whole number of at least 1",
        ),
        (
            changed(9, "decoder_layer_num", "inf"),
            "line 9 of wrong.csv has decoder_layer_num inf; expected a whole number of at least 1",
        ),
        (repeated, "line 122 of wrong.csv repeats line 5; expected each measurement once"),
        (contradicted, "lines 5 and 122 of wrong.csv give one design the latency_mean_encoder"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, edit: Callable[[list[str]], list[str]], sentence: str
) -> None:
    path = write(tmp_path / "wrong.csv", synthetic())
    path.write_text("".join(line + "\n" for line in edit(path.read_text().splitlines())))
    code, said = leave(capsys, latency_data.main, [str(path), *FLAGS, "--output", str(tmp_path / "out")])
    assert code == 2
    assert said.startswith(f"error: {sentence}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_text_or_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    assert leave(capsys, latency_data.main, [str(path)]) == (2, f"error: no such file or directory: {path}\n")
    path.write_bytes(b"\xff\xfe\x00")
    code, said = leave(capsys, latency_data.main, [str(path)])
    assert (code, said) == (2, "error: wrong.csv is not UTF-8 text; expected a CSV file of HAT's format\n")


def test_repeated_measurements_of_a_design_are_kept_in_one_fold(tmp_path: Path) -> None:
    columns = synthetic()
    again = {name: np.append(values, values[3]) for name, values in columns.items()}
    again["latency_mean_encoder"] = np.append(columns["latency_mean_encoder"], 1.1 * columns["latency_mean_encoder"][3])
    data = read_data(write(tmp_path / "again.csv", again), FACTS)
    assert len(data) == ROWS + 1
    fold = assign_folds(len(data), 10, 0, data.designs)
    assert fold[3] == fold[ROWS]


def test_further_columns_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "board.csv", synthetic())
    plain = read_data(path, FACTS)
    lines = path.read_text().splitlines()
    path.write_text("\ufeff" + "\r\n".join([lines[0] + ",note", "", *(line + ",x" for line in lines[1:]), ""]), encoding="utf-8")
    other = read_data(path, FACTS)
    assert all((other[name] == plain[name]).all() for name in COLUMNS)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "error: there is nothing to do; name one or more CSV files of HAT's format, or ask for --published\n"),
        (["--published", "--seed", "-1"], "error: seed is -1; expected a whole number of at least 0\n"),
        (["--fast"], "python -m studies.latency_data: error: unrecognized arguments: --fast\n"),
    ],
)
def test_a_bad_flag_is_one_sentence(capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str) -> None:
    assert leave(capsys, latency_data.main, flags) == (2, sentence)


def test_two_files_of_one_device_and_task_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [str(write(tmp_path / name, synthetic())) for name in ("xeon_1.csv", "xeon_2.csv")]
    code, said = leave(capsys, latency_data.main, [*files, *FLAGS])
    sentence = "xeon_1.csv and xeon_2.csv would both be the device file board-mt.json; give each file its --device-name and --task"
    assert (code, said) == (2, f"error: {sentence}\n")


# What a file does not say


def test_a_name_says_nothing_of_what_was_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither device nor lengths are taken from the name, which may be that of a file of HAT's."""
    path = write(tmp_path / "wmt14ende_cpu_xeon_all.csv", synthetic())
    code, said = leave(capsys, latency_data.main, [str(path), "--output", str(tmp_path / "out")])
    assert code == 2
    assert said.startswith(
        f"error: {path.name} does not say what its latencies are of, and is none of the files known by their content; "
        "give --device-name, --task, --tokens, --steps, --beam, --vocabulary ("
    )
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    device = hat_device(read_data(path, FACTS), 0)
    assert (device.name, device.source, device.ram_bytes) == ("board-mt", "measured in a test", None)
    told = json.dumps([device.description, *(table.how for table in device.tables)])
    for word in ("Xeon", "HAT's latency_dataset", "WMT", "TITAN", "float32", "2020", "thirtieth"):
        assert word not in told
    for table in device.tables:
        assert {table.how[name] for name in ("program", "runtime", "precision", "clocks", "date")} == {"not stated"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--steps", "23"], "give --device-name, --task, --tokens, --beam, --vocabulary ("),
        ([*FLAGS, "--steps", "0"], "--steps is 0; expected a whole number of at least 1"),
        ([*FLAGS, "--vocabulary", "-1"], "--vocabulary is -1; expected a whole number of at least 1"),
        ([*FLAGS, "--device-name", "My Board"], "the device's name is 'My Board'; expected lower-case letters"),
        ([*FLAGS, "--task", "a/b"], "the device's name is 'board-a/b'; expected lower-case letters"),
        ([*FLAGS, "--steps", "23", "30"], "--steps has 2 values; expected one, or one for each of 1 unknown file"),
    ],
)
def test_facts_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], sentence: str) -> None:
    code, said = leave(capsys, latency_data.main, [str(write(tmp_path / "board.csv", synthetic())), *flags])
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1


def test_facts_of_no_file_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = leave(capsys, latency_data.main, ["--published", "--steps", "30"])
    assert (code, said) == (2, "error: --steps is given, but no file that it could be said of; leave it out\n")


def test_a_step_is_the_decoder_column_by_its_steps() -> None:
    """The file of 23 steps is not read as one of 30: the same column is a longer step, in the file's prices and FLOPs alike."""
    columns = synthetic()
    data = data_of(columns)
    thirty = LatencyData(dataclasses.replace(FACTS, steps=30), data.file, data.sha256, data.columns)
    design = as_design(512, 1024, 3, 8000)
    steps = [Latency(hat_device(each, 0).tables[0])(design) for each in (data, thirty)]
    assert steps[0] / steps[1] == pytest.approx(30 / 23, rel=1e-3)
    assert (hat_device(data, 0).tables[0].workload.seq_len, hat_device(thirty, 0).tables[0].workload.seq_len) == (11, 15)
    assert head_flops(data) == pytest.approx(2 * 23 * 4 * columns["decoder_embed_dim"] * 8000)
    own, ffn = columns["decoder_embed_dim"], columns["decoder_ffn_embed_dim_avg"]
    seen, n = 20 * columns["decoder_arbitrary_ende_attn_avg"], 23 * 4
    layer = 2 * n * (6 * own * 512 + 2 * own * ffn) + 4 * 4 * seen * columns["encoder_embed_dim"] * 512
    layer += 4 * n * 512 * (12 + seen)
    assert layer_flops(data)[1] == pytest.approx(columns["decoder_layer_num"] * layer)


def test_the_facts_stand_beside_the_results(record: dict[str, Any]) -> None:
    first, second = record["data"]["devices"]
    assert (first["device"], second["device"]) == ("board-mt", "board-summaries")
    assert (first["facts"]["steps"], second["facts"]["steps"]) == (23, 30)
    assert first["facts"]["source"] == second["facts"]["source"] == "measured in a test"


def test_known_files_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "renamed.csv", synthetic())
    monkeypatch.setitem(KNOWN, hashlib.sha256(path.read_bytes()).hexdigest(), KNOWN[next(iter(KNOWN))])
    assert read_data(path, FACTS).facts.name == "raspberry-pi-4"


@pytest.mark.parametrize("name", ["raspberry-pi-4", "xeon", "titan-xp"])
def test_shipped_devices_are_those_of_the_known_files(name: str) -> None:
    [(sha256, facts)] = [item for item in KNOWN.items() if item[1].name == name]
    assert (facts.task, facts.tokens, facts.steps, facts.beam, facts.vocabulary) == ("wmt14ende", 30, 30, 5, 32_768)
    device = read_device(name)
    assert (device.description, device.source, device.ram_bytes) == (facts.description, facts.source, facts.ram_bytes)
    for table in device.tables:
        assert table.how["data"].endswith(f"sha256 {sha256}")
        assert {key: table.how[key] for key in facts.measured} == facts.measured
    assert [table.workload.seq_len for table in device.tables] == [15, 30]


def test_without_scikit_learn_it_says_so_before_it_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    path = write(tmp_path / "board.csv", synthetic())
    code, said = leave(capsys, latency_data.main, [str(path), *FLAGS, "--output", str(tmp_path / "out")])
    assert (code, said) == (2, "error: the boosted trees need scikit-learn; install it with: pip install scikit-learn\n")
    assert not (tmp_path / "out").exists()


def test_a_part_is_added_to_earlier_results(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"study": "latency_data", "data": {"devices": []}}')
    latency_data.main(["--published", "--output", str(tmp_path), "--devices", str(tmp_path / "devices")])
    assert "MeRino-64M" in capsys.readouterr().out
    record = json.loads(path.read_text())
    assert record["data"] == {"devices": []}
    assert [row["published_ms"] for row in record["published"]["networks"]] == list(PUBLISHED_MS.values())
    assert (tmp_path / "latency_published.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert read_device(str(tmp_path / "devices" / "jetson-nano.json")).tables[0].error is not None
    path.write_text('{"study": "another"}')
    code, said = leave(capsys, latency_data.main, ["--published", "--output", str(tmp_path)])
    assert (code, said) == (2, f"error: {path} is not a result of this study; move it, or choose another folder with --output\n")


@pytest.mark.parametrize("name", ["raspberry-pi-4", "xeon", "titan-xp"])
def test_shipped_devices_of_hat(name: str) -> None:
    device = read_device(name)
    decode, prefill = device.tables
    assert (decode.workload.phase, decode.workload.batch, prefill.workload.phase) == ("decode", 5, "prefill")
    assert decode.validated.layers == (1, 6)
    assert prefill.validated.layers == (6, 6)
    for table in device.tables:
        assert table.error is not None
        assert table.error.within_10 > 0.85
        assert table.how["assumptions"]
    steps = [Latency(decode)(as_design(512, 1024, layers, 32_768)) for layers in range(1, 7)]
    assert np.diff(steps) == pytest.approx(np.full(5, steps[1] - steps[0]))
    assert steps[0] > 0
    with pytest.raises(ValueError, match="was not validated for this"):
        Latency(decode)(PUBLISHED["MeRino-52M"])
