"""Knapsack problems of several objectives from files that others publish: MathOptFormat, and the .dat files of MOKP instances.

Both come with MultiObjectiveAlgorithms.jl (Dowson et al. 2025): MathOptFormat is JSON (Legat et al. 2022); a .dat file has the
number of objectives, of items, the capacity, a list of profits for each objective, and a list of weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formulation import Budget, DesignProblem
from formulation.records.reading import brief, read_json, read_text
from formulation.score_table import Column, OptionMenu, OptionSpace

PUBLISHED_POINTS = {"2KP50-11": 43, "MOKP_p-2_n-200_1": 317, "MOKP_p-2_n-200_2": 316}
"""Non-dominated points by the name of the file, after MultiObjectiveAlgorithms.jl: the front file beside 2KP50-11, and its results
on the MOKP instances (papers/Dowson_et_al_2026, where HiGHS takes 199 and 246 s, Gurobi 15.5 and 19.9 s)."""


@dataclass(frozen=True, eq=False)
class Knapsack:
    """maximize every row of profits·x subject to weights·x ≤ capacities, x binary.

    Attributes:
        profits: (objectives, items).
        weights: (budgets, items).
        capacities: (budgets,).
    """

    profits: np.ndarray
    weights: np.ndarray
    capacities: np.ndarray

    def problem(self) -> DesignProblem:
        """The first profit is maximized; of each other one what is left behind, the profit of items left out, is minimized."""
        items = self.profits.shape[1]
        space = OptionSpace(tuple(OptionMenu(f"item {item}", ("out", "in")) for item in range(items)))

        def column(name: str, out: np.ndarray, taken: np.ndarray) -> Column:
            return Column(name, "1", np.column_stack((out, taken)).tolist(), space)

        nothing = np.zeros(items)
        budgets = tuple(
            Budget(column(f"weight {number}", nothing, weight), float(capacity))
            for number, (weight, capacity) in enumerate(zip(self.weights, self.capacities, strict=True), start=1)
        )
        first, *others = self.profits
        left = tuple(column(f"profit {number} left", profit, nothing) for number, profit in enumerate(others, start=2))
        profit = column("profit 1", nothing, first)
        return DesignProblem(space, profit, budgets, minimize=left)  # type: ignore[arg-type]  # a space of selections

    def profits_of(self, values: np.ndarray) -> np.ndarray:
        """Profits (points, objectives) of values as a front gives them: the first profit, then what is left of the others."""
        return np.column_stack((values[:, 0], self.profits[1:].sum(axis=1) - values[:, 1:]))


def knapsack_files(folder: Path) -> dict[str, Path]:
    """The knapsack files of a folder by their names without endings; ValueError if there are none."""
    found = {path.name.split(".")[0]: path for path in (*sorted(folder.glob("*.mof.json")), *sorted(folder.glob("*.dat")))}
    if not found:
        raise ValueError(f"{folder} holds no knapsack file; expected a folder with files that end with .mof.json or .dat")
    return found


def read_knapsack(path: Path) -> Knapsack:
    """A knapsack problem from a file; ValueError where it isn't one."""
    try:
        return _read_mof(path) if path.suffix == ".json" else _read_dat(path)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a knapsack problem of several objectives: {brief(error)}") from None


def read_points(path: Path) -> np.ndarray | None:
    """The published points (points, objectives), each once, that stand beside a file as NAME.front.json; None where none do."""
    front = path.with_name(f"{path.name.split('.')[0]}.front.json")
    return np.unique([point["Y"] for point in read_json("front", front)], axis=0) if front.exists() else None


def _read_dat(path: Path) -> Knapsack:
    objectives, items, capacity, lists = _four(read_text("knapsack file", path).split(maxsplit=3))
    decoder = json.JSONDecoder()
    profits, end = decoder.raw_decode(lists)
    weights, _ = decoder.raw_decode(lists[end:].strip())
    knapsack = Knapsack(np.array(profits), np.array([weights]), np.array([float(capacity)]))
    if knapsack.profits.shape != (int(objectives), int(items)) or knapsack.weights.shape[1:] != (int(items),):
        raise ValueError(f"its profits have the shape {knapsack.profits.shape}; expected {objectives} objectives of {items} items")
    return knapsack


def _four(words: list[str]) -> list[str]:
    if len(words) < 4:
        raise ValueError("expected the numbers of objectives and items, the capacity, and lists of profits and weights")
    return words


def _read_mof(path: Path) -> Knapsack:
    record = read_json("knapsack file", path)
    place = {variable["name"]: number for number, variable in enumerate(record["variables"])}
    objective = record["objective"]
    if objective["sense"] != "max" or objective["function"]["type"] != "VectorAffineFunction":
        raise ValueError("it does not maximize several sums; expected the sense max of a VectorAffineFunction")
    terms = objective["function"]["terms"]
    profits = np.zeros((max(term["output_index"] for term in terms), len(place)))
    for term in terms:
        profits[term["output_index"] - 1, place[term["scalar_term"]["variable"]]] += term["scalar_term"]["coefficient"]
    rows = [one for one in record["constraints"] if one["function"]["type"] == "ScalarAffineFunction"]
    weights = np.array([_weights(row["function"], place) for row in rows])
    if any(row["set"]["type"] != "LessThan" for row in rows):
        raise ValueError("it has a constraint that is not a capacity; expected LessThan alone")
    return Knapsack(profits, weights, np.array([row["set"]["upper"] - row["function"]["constant"] for row in rows]))


def _weights(function: dict[str, Any], place: dict[str, int]) -> np.ndarray:
    weights = np.zeros(len(place))
    for term in function["terms"]:
        weights[place[term["variable"]]] += term["coefficient"]
    return weights
