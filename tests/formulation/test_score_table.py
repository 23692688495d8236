"""Score tables: what is read from a file, what is refused and in which words, and that every solver and question gives what brute
force over the table gives."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulation import (
    Budget,
    Column,
    DesignProblem,
    EffectiveEntropy,
    NotSeparable,
    OptionMenu,
    OptionSpace,
    ScoreTable,
    Selection,
    fingerprint,
    paper_space,
    read_scores,
    tabulate,
)
from formulation.derived import negative
from formulation.problem_file import problem_from_dict, problem_to_dict, read_problem
from formulation.score_file import table_from_json, table_to_dict
from formulation.table import evaluator
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import (
    Exhaustive,
    Form,
    Highs,
    Limits,
    Scip,
    Solution,
    Status,
    alternatives,
    count_designs,
    count_exhaustively,
    count_near,
    exact_front,
    exhaustive_front,
    explain_infeasibility,
    nsga2_front,
    price_of_budgets,
    program_text,
    solve,
)
from solvers.exact.multiple_choice import read_multiple_choice
from solvers.names import SOLVERS
from solvers.questions.alternatives import apart

PLAIN = """\
position,item,score,memory [MB],latency (ms),note
layer 0,full,2.0,40,3,a
layer 0,half,1.6,20,1.8,b
layer 1,full,2.5,40,3,c
layer 1,half,1.4,20,1.8,
layer 1,skip,0,0,0,d
"""


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes, name: str = "scores.csv", **options: Any) -> ScoreTable:
    return read_scores(write(folder / name, content), **options)


def drawn(seed: int, positions: int = 4, items: int = 3, ragged: bool = False, decimals: int = 2) -> ScoreTable:
    """A random table with a score, a memory and a latency."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "position": f"layer {i}",
            "item": f"v{j}",
            "score": round(float(random.normal()), decimals),
            "memory [MB]": int(random.integers(0, 40)),
            "latency [ms]": round(float(random.random()), decimals),
        }
        for i in range(positions)
        for j in range(items - (i % 2 if ragged else 0))
    ]
    return table_from_json(rows)


def selections(table: ScoreTable) -> list[Selection]:
    return list(table.space)


def within(problem: DesignProblem) -> list[Selection]:
    """The selections that meet every budget, by the plain sums."""
    return [one for one in problem.space if all(budget.allows(budget.quantity(one)) for budget in problem.subject_to)]


# Reading


def test_a_table_is_read(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN)
    assert table.space.positions == ("layer 0", "layer 1")
    assert [menu.names for menu in table.space.menus] == [("full", "half"), ("full", "half", "skip")]
    assert {name: column.unit for name, column in table.columns.items()} == {"score": "1", "memory": "MB", "latency": "ms"}
    assert [column.name for column in table.costs] == ["memory", "latency"]
    assert (table.rows, table.space.size, table.largest("memory")) == (5, 6, 80)
    chosen = table.space.decode((1, 0))
    assert (chosen.names, table.goal(chosen), table["memory"](chosen), table["latency"](chosen)) == (("half", "full"), 4.1, 60, 4.8)
    assert str(table.space.same("full")) == "full ×2"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\ufeff" + PLAIN, "scores.csv"),
        (PLAIN.replace(",", ";"), "scores.csv"),
        (PLAIN.replace(",", "\t"), "scores.tsv"),
        (PLAIN.replace("\n", "\r\n"), "scores.csv"),
        (PLAIN.replace(",", " , "), "scores.csv"),
        (PLAIN.replace("\nlayer 1,full", "\n\n,,,,,\nlayer 1,full"), "scores.csv"),
        ('"' + PLAIN.replace(",", '","').replace("\n", '"\n"').removesuffix('"'), "scores.csv"),
    ],
    ids=["byte order mark", "semicolons", "tabs", "Windows", "spaces", "empty lines", "quotes"],
)
def test_the_same_table_in_other_hands(content: str, name: str, tmp_path: Path) -> None:
    table = read(tmp_path, content, name)
    plain = read(tmp_path, PLAIN, "plain.csv")
    assert table.space == plain.space
    assert dict(table.columns) == dict(plain.columns)
    assert list(table.unread) == ["note"]


def test_forms_of_json(tmp_path: Path) -> None:
    rows = list(csv.DictReader(PLAIN.splitlines()))
    for row in rows:
        row.update({key: float(value) for key, value in row.items() if key not in ("position", "item", "note")})
    nested: dict[str, dict[str, Any]] = {}
    for row in rows:
        nested.setdefault(row["position"], {})[row["item"]] = {k: v for k, v in row.items() if k not in ("position", "item")}
    plain = read(tmp_path, PLAIN)
    for form in (rows, {"rows": rows}, {f"row {n}": row for n, row in enumerate(rows)}, nested):
        table = read(tmp_path, json.dumps(form), "scores.json")
        assert table.space == plain.space
        assert dict(table.columns) == dict(plain.columns)


def test_replacements_of_a_puzzle(tmp_path: Path) -> None:
    """What Puzzletron writes: records by name, with metrics and stats nested in them, and the layer in a list of one."""
    records = {
        f"replacement_{i}_{name}": {
            "block_config": {"attention": {"no_op": name == "skip"}},
            "block_repr": name,
            "parent_layer_indices": [i],
            "metrics": {"lm_loss": loss * i},
            "stats": {"memory_mib": memory, "runtime_ms": None},
        }
        for i in (10, 9)
        for name, loss, memory in (("full", 0.0, 400.5), ("skip", 0.07, 0))
    }
    columns = {"position": "parent_layer_indices", "item": "block_repr"}
    table = read(tmp_path, json.dumps(records), "metrics.json", score="metrics.lm_loss", least=True, **columns)
    assert table.space.positions == ("9", "10")
    assert list(table.columns) == ["metrics.lm_loss", "stats.memory_mib"]
    problem = table.problem(Budget(table["stats.memory_mib"], 401))
    solution = solve(problem, Exhaustive())
    assert solution.architecture is not None
    assert solution.architecture.names == ("skip", "full")  # type: ignore[attr-defined]
    assert solution.objective == pytest.approx(0.63)
    with pytest.raises(ValueError, match=r"row 'replacement_10_full': stats\.runtime_ms is null; expected a number"):
        table["stats.runtime_ms"]
    records["replacement_9_full"]["parent_layer_indices"] = [9, 10]
    with pytest.raises(
        ValueError, match=r"'replacement_9_full': parent_layer_indices is \[9, 10\]; expected one name, as one option"
    ):
        read(tmp_path, json.dumps(records), "metrics.json", score="metrics.lm_loss", **columns)


HEAD = "position,item,score,memory\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "it is empty; expected a head such as position,item,score,memory"),
        (" \n\n", "it is empty; expected a head"),
        (HEAD, "it has a head and no rows; expected a row an option"),
        (HEAD + "0,a,1,2,3\n", "line 2 has 5 cells; expected 4, as the head has"),
        (HEAD + "0,a,1,2\n0,a,2,3\n", "line 3: position 0 has the option a already, at line 2; expected each option"),
        (HEAD + "0,a,1,2\n0,b,,3\n", "line 3: score is empty; expected a number"),
        (HEAD + "0,a,one,2\n", "line 2: score is 'one'; expected a number"),
        (HEAD + "0,a,nan,2\n", "line 2: score is 'nan'; expected a finite number"),
        (HEAD + "0,a,-inf,2\n", "line 2: score is '-inf'; expected a finite number"),
        (HEAD + "0,a,1_0,2\n", "line 2: score is '1_0'; expected a number"),
        (HEAD + "0,a,1e999,2\n", "line 2: score is '1e999'; expected a number of at most 1.8e+308"),
        (HEAD.replace(",", ";") + "0;a;0,5;2\n", "line 2: score is '0,5'; expected a number with a decimal point, such as 0.5"),
        (HEAD + '0,a,"1,402",2\n', "such as 1402, or 1.402 if the comma is a decimal one"),
        (HEAD + "0,a,1_402_000,2\n", "expected a number with nothing between its thousands, such as 1402000"),
        (HEAD + '0,"half\nline",1,2\n', "item is 'half\\nline'; expected a name on one line"),
        ("# scores\n" + HEAD + "0,a,1,2\n", "line 1 is a comment, '# scores'; expected the head of the table: leave it out"),
        ("sep=;\n" + HEAD + "0,a,1,2\n", "its first line is sep=;, which only Excel reads; leave it out"),
        (HEAD + ",a,1,2\n", "line 2: position is empty; expected a name"),
        (HEAD + "0,,1,2\n", "line 2: item is empty; expected a name"),
        (HEAD + '0,"a,1,2\n', "is not CSV"),
        (
            "layer,item,score\n0,a,1\n",
            "it has no column position; name that of the positions with --position NAME, of layer, item, score",
        ),
        (
            "position,item,loss\n0,a,1\n",
            "it has no column score; name that of the score with --score NAME, of position, item, loss",
        ),
        ("position,item,score,score\n0,a,1,1\n", "two columns are called score; expected each name once"),
        ("position,item,score,\n0,a,1,1\n", "column 4 has no name; expected one in the head of each"),
    ],
)
def test_what_is_wrong_with_a_table(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the score table .*scores\.csv: ") as refused:
        read(tmp_path, content)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "it has no column position"),
        ("{", "is not valid JSON"),
        ("3", "it is 3; expected a list of rows such as"),
        ("[3]", "row 1 is 3; expected an object such as"),
        ('[{"position": 0, "item": "a", "score": NaN}]', "holds the value NaN; expected finite numbers"),
        ('[{"position": 0, "item": "a", "score": true}]', "row 1: score is True; expected a number"),
        ('[{"position": 0, "item": "a", "score": "x"}]', "row 1: score is 'x'; expected a number"),
        ('[{"position": 0, "item": "a", "score": 1}, {"position": 1, "item": "a"}]', "row 2: score is missing; expected a number"),
        ('[{"position": true, "item": "a", "score": 1}]', "row 1: position is True; expected a name"),
        ('[{"item": "a", "score": 1, "position": 1}, {"item": "a", "score": 1}]', "row 2: position is empty; expected a name"),
        ('{"0": {"a": 3}}', "option 'a' of position '0' is 3; expected an object such as"),
    ],
)
def test_what_is_wrong_with_a_table_in_json(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the score table ") as refused:
        read(tmp_path, content, "scores.json")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_text_of_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the score table .* is not text in UTF-8"):
        read(tmp_path, PLAIN.replace("full", "größte").encode("latin-1"))
    with pytest.raises(ValueError, match=r"cannot read the score table .*none\.csv: no such file"):
        read_scores(tmp_path / "none.csv")


def test_the_most_of_a_column_may_lie_beyond_float64(tmp_path: Path) -> None:
    table = read(tmp_path, "position,item,score,memory\n0,a,1,1e308\n1,a,1,5e307\n2,a,1,5e307\n")
    with pytest.raises(ValueError, match=r"memory adds up beyond the largest float64, 1\.8e\+308; give it a larger unit"):
        table.largest("memory")


def test_a_pure_number_has_no_unit_in_words(tmp_path: Path) -> None:
    table = read(tmp_path, "position,item,score,cost,size [MB]\n0,a,1,3,4\n0,b,2,5,6\n")
    problem = table.problem(Budget(table["cost"], 2), Budget(table["size"], at_least=5))
    assert list(map(str, problem.subject_to)) == ["cost ≤ 2", "size ≥ 5 MB"]
    [design] = [one for one in problem.space if problem.objective(one) == 1]
    assert list(map(str, problem.evaluate(design).usage)) == ["cost ≤ 2", "size ≥ 5 MB"]
    needs = explain_infeasibility(problem).needs
    assert str(needs[0]) == "cost ≤ 2: would have to be 5 (the least value)"
    with pytest.raises(ValueError, match=r"the budget for cost is inf; expected a finite number$"):
        Budget(table["cost"], math.inf)


def test_a_column_with_a_slip_is_known(tmp_path: Path) -> None:
    table = read(tmp_path, "position,item,score,memory,note\n0,a,1,NA,x\n0,b,1,4,y\n1,a,1,5,3\n")
    assert table.partly == ("memory",)
    with pytest.raises(ValueError, match=r"the score table .*scores\.csv: line 2: memory is 'NA'; expected a finite number"):
        table["memory"]


def test_columns_that_are_no_numbers_matter_where_they_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN)
    with pytest.raises(ValueError, match="line 2: note is 'a'; expected a number"):
        table["note"]
    with pytest.raises(ValueError, match="unknown column 'memmory'; did you mean 'memory'"):
        table["memmory"]
    with pytest.raises(ValueError, match="position layer 0 has no option skip; it has full, half"):
        table.space.same("skip")
    with pytest.raises(ValueError, match="position, item and score are named position, memory, memory; expected three columns"):
        read(tmp_path, PLAIN, item="memory", score="memory")


def test_positions_of_whole_numbers_come_in_their_order(tmp_path: Path) -> None:
    content = HEAD + "".join(f"{i},{name},1,1\n" for i in (10, 2, 0) for name in ("b", "a"))
    table = read(tmp_path, content)
    assert table.space.positions == ("0", "2", "10")
    assert {menu.names for menu in table.space.menus} == {("b", "a")}


def test_what_is_not_chosen_is_a_position_of_one_option(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN + "embedding,kept,0,100,0,\n")
    assert table.space.same("full").names == ("full", "full", "kept")
    assert table["memory"](table.space.same("full")) == 180
    solution = solve(table.problem(Budget(table["memory"], 160)), Exhaustive())
    assert (solution.objective, table["memory"](solution.architecture)) == (4.1, 160)  # type: ignore[arg-type]


def test_a_large_table_is_read(tmp_path: Path) -> None:
    content = HEAD + "".join(f"{i},v{j},{i + j},{j}\n" for i in range(1000) for j in range(50))
    table = read(tmp_path, content)
    assert (len(table.space.menus), table.rows, table.largest("memory")) == (1000, 50_000, 49_000)
    problem = table.problem(Budget(table["memory"], 0))
    solution = solve(problem, Highs(), Limits(seconds=60))
    assert (solution.status, solution.objective) == (Status.OPTIMAL, sum(range(1000)))


# What it is as a problem


def test_a_table_is_its_columns() -> None:
    table = drawn(0, ragged=True)
    column = table["latency"]
    tabulated = tabulate([column, negative(column)], table.space)
    for i, menu in enumerate(table.space.menus):
        own = [column.block_at(i, item, table.space) for item in menu.items]  # type: ignore[arg-type]
        assert tabulated.blocks[i].tolist() == [own, [-value for value in own]]
    choices = np.array(list(table.space.iterate_choices()))
    values = [column(one) for one in selections(table)]
    assert evaluator(column, table.space)(choices) == pytest.approx(values, rel=1e-12)
    assert len(choices) == table.space.size == 3 * 2 * 3 * 2
    assert not column.values.flags.writeable


def test_a_column_of_wrong_values_is_refused() -> None:
    space = OptionSpace((OptionMenu("first", ("a", "b")), OptionMenu("second", ("a",))))
    with pytest.raises(ValueError, match="cost of b at position first is nan; expected a finite number"):
        Column("cost", "1", [[1, float("nan")], [2]], space)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="column cost lacks values of some options, or has too many"):
        Column("cost", "1", [[1, 2], [2, 3]], space)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="position second has the option a twice"):
        OptionMenu("second", ("a", "a"))
    with pytest.raises(ValueError, match="two positions are called first"):
        OptionSpace((OptionMenu("first", ("a",)), OptionMenu("first", ("b",))))


def test_a_column_belongs_to_its_table() -> None:
    one, other = drawn(0), drawn(0, items=2)
    with pytest.raises(ValueError, match="the column memory is of other positions or options than the space"):
        DesignProblem(one.space, one.goal, (Budget(other["memory"], 1),))
    with pytest.raises(ValueError, match="the column memory is of other positions or options than the space"):
        DesignProblem(paper_space(), EffectiveEntropy(), (Budget(one["memory"], 1),))
    with pytest.raises(ValueError, match="the selection has 3 options; the table has 4 positions"):
        one.goal(Selection(one.space.same("v0").blocks[:3]))


def test_identity_is_content() -> None:
    one, again, other = drawn(1), drawn(1), drawn(2)
    assert one.space == again.space
    assert one["memory"] == again["memory"]
    assert hash(one["memory"]) == hash(again["memory"])
    assert one["memory"] != other["memory"]
    assert one["memory"] != replace(one["memory"], name="storage")
    budget = 40.0
    problems = [table.problem(Budget(table["memory"], budget)) for table in (one, again, other)]
    assert fingerprint(problems[0]) == fingerprint(problems[1]) != fingerprint(problems[2])
    renamed = OptionSpace((*one.space.menus[:-1], OptionMenu("last", one.space.menus[-1].names)))
    moved = Column("memory", "MB", one["memory"].rows, renamed)  # type: ignore[arg-type]
    assert fingerprint(moved) != fingerprint(one["memory"])
    assert moved != one["memory"]


def test_it_is_a_multiple_choice_knapsack() -> None:
    table = drawn(3, ragged=True)
    read_problem_ = read_multiple_choice(table.problem(Budget(table["memory"], 50), Budget(table["latency"], at_least=1)))
    assert read_problem_ is not None
    assert (read_problem_.positions, read_problem_.budgets, read_problem_.alike) == (4, 2, False)
    assert read_problem_.allowed.sum() == table.rows
    assert read_problem_.costs[1] == pytest.approx(-table["latency"].values)


def test_a_table_in_a_problem_file(tmp_path: Path) -> None:
    table = drawn(4, ragged=True)
    problem = table.problem(Budget(table["memory"], 50), Budget(table["latency"], at_least=1))
    record = json.loads(json.dumps(problem_to_dict(problem, quantity_to_dict)))
    again = problem_from_dict(record, quantity_from_dict)
    assert again == problem
    assert fingerprint(again) == fingerprint(problem)
    rows = table_to_dict(table.space, list(table.columns.values()))["rows"]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    record["space"] = {"table": str(tmp_path / "scores.csv")}
    write(tmp_path / "problem.json", json.dumps(record))
    assert read_problem(tmp_path / "problem.json", quantity_from_dict) == problem
    record["maximize"] = "quality"
    with pytest.raises(ValueError, match=r"problem.maximize: unknown column 'quality'.*choose from score, memory, latency"):
        problem_from_dict(record, quantity_from_dict)
    with pytest.raises(ValueError, match="negative score cannot be written beside a score table"):
        problem_to_dict(DesignProblem(table.space, negative(table.goal)), quantity_to_dict)


def test_what_a_file_of_a_problem_keeps_is_the_table(tmp_path: Path) -> None:
    """Orders of options that differ from position to position survive being written and read."""
    content = HEAD + "0,b,1,1\n0,c,2,1\n1,a,1,1\n1,c,3,1\n1,b,1,1\n"
    table = read(tmp_path, content)
    again = table_from_json(table_to_dict(table.space, list(table.columns.values())))
    assert again.space == table.space
    assert dict(again.columns) == dict(table.columns)


# Solvers and questions against brute force


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_a_table(name: str, ragged: bool) -> None:
    table, entrant = drawn(5, ragged=ragged), SOLVERS[name]
    problem = table.problem(Budget(table["memory"], 70), Budget(table["latency"], at_least=1.2))
    best = max(map(table.goal, within(problem)))
    if name == "counts":  # how many positions take an option says nothing where each has its own numbers
        with pytest.raises(NotSeparable, match="use DynamicProgramming or Highs"):
            solve(problem, entrant.solver)
        return
    solution = solve(problem, entrant.solver, Limits(evaluations=2_000 if entrant.seeded else None))
    assert solution.architecture in within(problem)
    if entrant.seeded and name != "dp-ea":
        assert solution.objective is not None
        assert solution.objective <= best
    else:
        assert solution.status is Status.OPTIMAL
        assert solution.objective == best
    least = solve(replace(problem, maximize=None, minimize=(table.goal,)), Exhaustive())
    assert least.objective == min(map(table.goal, within(problem)))


@pytest.mark.parametrize("name", [name for name, entrant in SOLVERS.items() if not entrant.seeded])
def test_an_optimum_of_nothing_is_proved(name: str) -> None:
    """The loss of what stays as it was is 0, next to which no tolerance is small."""
    rows = [{"position": i, "item": j, "score": loss, "memory": 2 - j} for i in range(3) for j, loss in enumerate((0, 0.3, 7))]
    table = table_from_json(rows, least=True)
    solution = solve(table.problem(Budget(table["memory"], 6)), SOLVERS[name].solver)
    assert (solution.status, solution.objective, solution.bound, solution.gap) == (Status.OPTIMAL, 0, 0, 0)


def test_terms_of_one_sign_do_not_cancel() -> None:
    table = table_from_json([{"position": i, "item": j, "score": 0.1 * j, "gain": 0.1 - j} for i in range(3) for j in range(3)])
    tabulated = tabulate([table.goal, negative(table.goal), table["gain"]], table.space)
    rounding = tabulated.rounding(slice(None), np.array([0.0, 0.0, 0.0]))
    assert rounding[:2].tolist() == [0, 0]
    assert rounding[2] > 0


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["dp", "reduction", "highs", "exhaustive"]))
@settings(max_examples=25, deadline=None)
def test_random_tables_against_brute_force(seed: int, ragged: bool, solver: str) -> None:
    random = np.random.default_rng(seed)
    table = drawn(seed, int(random.integers(1, 6)), int(random.integers(2, 5)), ragged, int(random.integers(0, 3)))
    shares = random.random(2)
    problem = table.problem(
        Budget(table["memory"], round(float(shares[0]) * table.largest("memory"))),
        Budget(table["latency"], at_least=float(shares[1]) * table.largest("latency") / 2),
    )
    kept = within(problem)
    solution: Solution = solve(problem, SOLVERS[solver].solver)
    if not kept:
        assert solution.status is Status.INFEASIBLE
        return
    best = max(map(table.goal, kept))
    # Terms that nearly cancel leave an optimum next to which an engine's tolerances are not small.
    assert solution.status is Status.OPTIMAL or (solver == "highs" and abs(best) < 0.1)
    assert solution.objective is not None
    assert solution.objective == pytest.approx(best, abs=1e-6 * abs(best) + 1e-9)
    threshold = best - 0.5
    assert count_designs(problem, threshold).number == sum(table.goal(one) >= threshold - 1e-12 for one in kept)


@pytest.mark.parametrize("form", [Form.CHOICE, Form.LOOKUP])
def test_both_forms_of_a_program(form: Form) -> None:
    table = drawn(6)
    problem = table.problem(Budget(table["memory"], 70))
    best = max(map(table.goal, within(problem)))
    solution = solve(problem, Scip(form))
    assert (solution.status, solution.objective) == (Status.OPTIMAL, best)
    start = solve(problem, Scip(form), Limits(start=within(problem)[0]))
    assert start.objective == best
    for style in ("text", "lp", "mps", "nl", "gms"):
        text = program_text(problem, form, style)  # type: ignore[arg-type]
        assert "over 81 designs of 4 positions of 3 items each" in text
    with pytest.raises(ValueError, match="the space is one of 4 positions of 3 items each, and a LaTeX page speaks of blocks"):
        program_text(problem, form, "latex")


def test_fronts_of_a_table() -> None:
    table = drawn(7, 5)
    problem = table.problem(Budget(table["latency"], 4), minimize=(table["memory"],))
    truth = [(point.objective, *point.costs) for point in exhaustive_front(problem)]
    values = [(table.goal(one), table["memory"](one)) for one in within(problem)]
    expected = sorted(
        {own for own in values if not any(b[0] >= own[0] and b[1] <= own[1] and b != own for b in values)}, key=lambda v: v[1]
    )
    assert np.array(truth) == pytest.approx(np.array(expected))
    front = exact_front(problem)
    assert front.complete
    assert front.values == pytest.approx(np.array(expected))
    heuristic = nsga2_front(problem, Limits(evaluations=3_000))
    assert {point.architecture for point in heuristic.points} <= set(within(problem))


@pytest.mark.parametrize("differing", [1, 2, 4])
def test_alternatives_differ_in_positions(differing: int) -> None:
    table = drawn(8)
    problem = table.problem(Budget(table["memory"], 70))
    left = sorted(within(problem), key=table.goal, reverse=True)
    for solution in alternatives(problem, 4, differing, Highs()):
        if not left:
            assert solution.status is Status.INFEASIBLE
            break
        assert solution.objective == pytest.approx(table.goal(left[0]))
        chosen: Any = solution.architecture
        assert apart(problem, chosen, chosen) == 0
        left = [one for one in left if sum(map(str.__ne__, one.names, chosen.names)) >= differing]
        assert {apart(problem, chosen, one) for one in left} <= set(range(differing, 5))  # type: ignore[arg-type]


def test_positions_are_not_exchanged() -> None:
    """Two positions with one menu and the same numbers: to swap their options is another selection."""
    rows = [{"position": i, "item": name, "score": value} for i in range(2) for name, value in (("a", 1), ("b", 2), ("c", 0))]
    table = table_from_json(rows)
    problem = DesignProblem(table.space, table.goal)
    a, b = table.space.decode((0, 1)), table.space.decode((1, 0))
    assert apart(problem, a, b) == 2  # type: ignore[arg-type]
    near = count_near(problem, 3, 0.0)
    assert (near.number, near.distinct) == (3, 3)  # both of them, and b twice
    assert count_near(problem, 3, 0.0, counter=count_exhaustively).number == 3


def test_prices_and_diagnosis_against_brute_force() -> None:
    table = drawn(9)
    problem = table.problem(Budget(table["memory"], 70), Budget(table["latency"], at_least=0.5))
    best = {
        used: max(table.goal(one) for one in selections(table) if table["memory"](one) <= used and table["latency"](one) >= 0.5)
        for used in sorted({table["memory"](one) for one in within(replace(problem, subject_to=problem.subject_to[1:]))})
    }
    price = price_of_budgets(problem, Highs(), steps=3)[0]
    for point in price.breakpoints:
        assert point.objective == pytest.approx(best[point.bound])
    assert price.binds is (max(best.values()) > best[price.present.bound])
    impossible = table.problem(Budget(table["memory"], 5), Budget(table["latency"], at_least=2))
    assert not within(impossible)
    diagnosis = explain_infeasibility(impossible, Highs())
    assert diagnosis.status is Status.INFEASIBLE
    for budget, need in zip(impossible.subject_to, diagnosis.needs, strict=True):
        rest = [one for one in impossible.subject_to if one != budget]
        values = [budget.quantity(one) for one in selections(table) if all(b.allows(b.quantity(one)) for b in rest)]
        if values:
            assert need.bound == pytest.approx(min(values) if budget.upper is not None else max(values))
        else:
            assert need.status is Status.INFEASIBLE


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["dp", "reduction"]))
@settings(max_examples=20, deadline=None)
def test_random_questions_against_brute_force(seed: int, ragged: bool, name: str) -> None:
    """Diagnosis, prices, alternatives and fronts of random tables, scores of both signs, ties included."""
    random, solver = np.random.default_rng(seed), SOLVERS[name].solver
    table = drawn(seed, int(random.integers(2, 5)), int(random.integers(2, 4)), ragged, int(random.integers(1, 3)))
    shares = random.random(2)
    problem = table.problem(
        Budget(table["memory"], round(float(shares[0]) * table.largest("memory"))),
        Budget(table["latency"], at_least=float(shares[1]) * table.largest("latency")),
    )
    kept = within(problem)
    if not kept:
        diagnosis = explain_infeasibility(problem, solver)
        assert not within(replace(problem, subject_to=diagnosis.conflict))
        for budget in diagnosis.conflict:
            assert within(replace(problem, subject_to=tuple(one for one in diagnosis.conflict if one != budget)))
        return
    memory = [table["memory"](one) for one in selections(table) if problem.subject_to[1].allows(table["latency"](one))]
    price = price_of_budgets(problem, solver, steps=2)[0]
    for point in price.breakpoints:
        assert point.bound in memory
        relaxed = replace(problem, subject_to=(Budget(table["memory"], point.bound), problem.subject_to[1]))
        assert point.objective == pytest.approx(max(map(table.goal, within(relaxed))), abs=1e-9)
    differing, left = int(random.integers(1, len(table.space.menus) + 1)), list(kept)
    for solution in alternatives(problem, 3, differing, solver):
        if not left:
            assert solution.status is Status.INFEASIBLE
            break
        assert solution.objective == pytest.approx(max(map(table.goal, left)), abs=1e-9)
        chosen: Any = solution.architecture
        left = [one for one in left if sum(map(str.__ne__, one.names, chosen.names)) >= differing]
    front = exact_front(replace(problem, minimize=(table["memory"],)))
    values = [(round(table.goal(one), 9), table["memory"](one)) for one in kept]
    best = {own for own in values if not any(b[0] >= own[0] and b[1] <= own[1] and b != own for b in values)}
    assert front.complete
    assert {(round(score, 9), cost) for score, cost in front.values.tolist()} == best


# How selections are shown


def shown(space: OptionSpace, selection: Selection, columns: Sequence[Column]) -> list[list[str]]:
    return space.design_table(selection, columns)[1]


def test_a_selection_is_shown_with_its_sums() -> None:
    table = drawn(0, 80)
    names = ["v0"] * 30 + ["v1"] + ["v2"] * 49
    selection = table.space.decode([table.space.menus[0].number_of[name] for name in names])
    rows = shown(table.space, selection, [table["memory"]])
    memory = table["memory"].values
    first, last = int(memory[:30, 0].sum()), int(memory[31:, 2].sum())
    assert rows == [
        ["layer 0 to layer 29", "30", "v0", str(first)],
        ["layer 30", "", "v1", str(int(memory[30, 1]))],
        ["layer 31 to layer 79", "49", "v2", f"{last:,}"],
        ["sum", "", "", f"{table['memory'](selection):,.0f}"],
    ]
    assert str(selection) == "v0 ×30, v1, v2 ×49"
    other = table.space.decode([0] * 30 + [0] + [2] * 49)
    assert table.space.words(other, selection) == "but layer 30: v0"
    assert table.space.words(selection, selection) == "as above"
    assert table.space.words(table.space.same("v1"), selection).endswith(" and 73 more")


def test_a_selection_as_json() -> None:
    selection = drawn(0).space.same("v1")
    assert Selection.from_dict(json.loads(json.dumps(selection.to_dict()))) == selection
    with pytest.raises(ValueError, match=r"selection.options\[1\] is 3; expected a text"):
        Selection.from_dict({"options": ["v1", 3]})
    with pytest.raises(ValueError, match="selection has the unknown key 'option'; did you mean 'options'"):
        Selection.from_dict({"option": []})


def brute_product(problem: DesignProblem) -> int:
    return sum(1 for _ in product(*(menu.names for menu in problem.space.menus)))  # type: ignore[attr-defined]


def test_the_space_counts_its_selections() -> None:
    for ragged in (False, True):
        table = drawn(0, ragged=ragged)
        assert table.space.size == brute_product(DesignProblem(table.space, table.goal)) == len(set(selections(table)))
        sample = table.space.sample(np.random.default_rng(0), 200)
        assert all(table.space.allows(row) for row in sample.tolist())
