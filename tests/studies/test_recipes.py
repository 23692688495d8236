"""The study of recipes: what is compared with what, the best rate, documents divided, and a run of each kind of row."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, Block
from formulation.command.options import read_options
from formulation.records.rows import Row
from hardware_models import Params
from studies.recipes import study
from studies.recipes.figures import draw_carry, draw_changes
from studies.recipes.study import (
    CARRY_RATES,
    CARRY_RULES,
    CARRY_WIDTHS,
    CHANGES,
    DESIGNS,
    Recipe,
    RecipesOptions,
    best_rate,
    change_runs,
    command_line,
    divided,
    main,
    train_recipe,
)
from studies.trained.plan import TokenData


def options(*flags: str) -> RecipesOptions:
    return read_options(RecipesOptions, command_line(), ["--held-out-text", "other.txt", *flags])


def test_a_comparison_changes_nothing_but_what_it_says() -> None:
    runs = change_runs(options("--seeds", "2"))
    pairs: dict[tuple[str, str, int], dict[str, Recipe]] = {}
    for name, design, side, seed, recipe in runs:
        pairs.setdefault((name, design, seed), {})[side] = recipe
    assert len(pairs) == 2 * sum(len(change.designs) for change in CHANGES.values())
    for (name, design, seed), pair in pairs.items():
        before, after = pair["before"].plan, pair["after"].plan
        assert pair["before"].design == pair["after"].design == DESIGNS[design]
        assert {field: after[field] for field in after if after[field] != before[field]} == CHANGES[name].after
        assert before["seed"] == after["seed"] == seed
    for design in DESIGNS.values():
        assert 0.5e6 < Params()(design) < 3e6


def test_the_best_rate_is_the_bottom_of_a_parabola_in_the_logarithm() -> None:
    losses = {2.0**-k: 3.0 + 0.1 * (k - 6.3) ** 2 for k in range(4, 9)}
    found = best_rate(losses)
    assert found["bracketed"]
    assert math.log2(found["best_rate"]) == pytest.approx(-6.3)
    assert found["best_loss"] == pytest.approx(3.0)
    assert best_rate({0.1: 2.0, 0.2: 1.0, 0.4: None}) == {"best_rate": 0.2, "best_loss": 1.0, "bracketed": False}
    assert best_rate({0.1: None})["best_rate"] is None


def test_documents_are_divided_before_the_lines_that_match(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("\n = One = \n\na b\n = = Two = = \nc\n", encoding="utf-8")
    data = options("--text", str(source)).data
    (path,) = divided((str(source),), "^ =.*= $", data, tmp_path / "texts" / "divided.txt")
    from merino_net.corpus.text import Text

    assert [document.strip() for document in Text((path,)).documents()] == ["= One = \n\na b", "= = Two = = \nc"]
    assert divided((str(source),), None, data, tmp_path / "nothing.txt") == (str(source),)
    assert not (tmp_path / "nothing.txt").exists()


def test_a_run_is_read_with_documents_apart_and_not(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(1, 60, 40 * 256).astype(np.uint16)
    tokens[::50] = 0
    np.save(tmp_path / "tokens.npy", tokens)
    path = str(tmp_path / "tokens.npy")
    data = TokenData(path, path, 0.0, 0, {"tokens": len(tokens)})
    design = Architecture((Block(32, 32, 1, head_size=32),), embedding_width=32, vocabulary=64, positions=256)
    row = train_recipe(Recipe(design, study._plan(10, 0, precision="float32")), data, 1, tmp_path / "out")
    assert row["plan"]["steps"] == 10
    assert row["tokens"] == 10 * 8 * 256
    assert 3.5 < row["held_out_loss"]["packed"] < 4.3
    assert row["held_out_loss"]["packed"] != row["held_out_loss"]["apart"]
    assert not (tmp_path / "out" / "network").exists()


def made_up(recipe: Recipe, data: TokenData, *_: Any) -> Row:
    """A row in place of a run, whose loss depends on the seed, the learning rate and whether repeats are scaled."""
    from merino_net.training.run import TrainingPlan

    plan = recipe.plan
    best = 0.02 if plan["optimizer"] == "muon" else 0.003
    loss = 4.0 + 0.01 * plan["seed"] + (0.1 if plan["repeat_exponent"] else 0.0) + abs(math.log2(plan["learning_rate"] / best)) / 10
    row = {"architecture": recipe.design.to_dict(), "plan": plan, "data": data.identity}
    if plan["repeat_exponent"] == 1.0 and plan["seed"] == 1:
        return {**row, "error": "the loss is nan"}
    assert set(plan) == set(dataclasses.asdict(TrainingPlan()))
    return {**row, "held_out_loss": {"packed": loss, "apart": loss - 1}, "tokens_per_s": 1000.0}


def test_the_study_compares_seeds_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(study, "train_recipe", made_up)
    text = tmp_path / "text.txt"
    text.write_text("a sheep and a model of a sheep\n" * 4000)
    flags = ["--text", str(text), "--held-out-text", str(text), "--vocabulary", "260", "--cache", str(tmp_path / "cache")]
    command = [*flags, "--seeds", "2", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    records = {(record["change"], record["design"]): record for record in summary["changes"]}
    half = records["repeated layers add 1/√L", "shared"]
    assert half["difference"] == pytest.approx(0.1)
    assert half["difference_sd"] == pytest.approx(0.0, abs=1e-9)
    assert half["seeds_sd"] == pytest.approx(0.01 / 2**0.5)
    assert records["repeated layers add 1/L", "shared"]["after"] == {"0": pytest.approx(half["after"]["0"]), "1": None}
    apart = records["documents apart", "layers"]
    assert apart["before"]["0"] == pytest.approx(half["before"]["0"] - 1)
    carried = summary["carry"]["records"]
    assert [(record["rule"], record["width"]) for record in carried] == [
        (rule, width) for width in CARRY_WIDTHS for rule in CARRY_RULES
    ]
    assert all(
        record["bracketed"] and record["best_rate"] == pytest.approx(0.02 if "Muon" in record["rule"] else 0.003, rel=0.2)
        for record in carried
    )
    assert all(len(rates) == 4 for rates in CARRY_RATES.values())
    rows = (tmp_path / "out" / "rows.jsonl").read_bytes()
    monkeypatch.setattr(study, "train_recipe", None)  # nothing is left to run
    assert main(command) == 0
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == rows
    assert "repeated layers add 1/L" in capsys.readouterr().out
    assert len(draw_changes(summary["changes"]).axes[0].get_yticks()) == len(records)
    assert len(draw_carry(carried).axes) == len(CARRY_RULES)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "25"], "--steps is 25; expected a multiple of 10"),
        (["--seeds", "0"], "seeds is 0"),
        (["--document-start", "("], "--document-start is not a regular expression"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        main(["--held-out-text", "other.txt", *flags])


def test_a_held_out_text_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --held-out-text"):
        main(["--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
