"""What an optimum under a time for each decoded token gains by knowing the cliff of the watch: designs with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, Menu, SearchSpace, SpaceUnion
from hardware_models.latency import Latency, LatencyTable
from solvers import DynamicProgramming, Limits, Status, solve
from studies.latency_data.watch_file import VOCABULARY

RESIDUAL_WIDTHS = tuple(range(416, 640 + 1, 32))
"""Residual widths, a space each; every other one is a multiple of 64, as every other FFN width is."""
_CHOICES: dict[str, Any] = {
    "ffn_widths": tuple(range(768, 2304 + 1, 96)),
    "depths": tuple(range(8, 28 + 1, 4)),
    "heads": (4, 8, 12, 16),
    "kv_heads": (1, 2, 4),
    "head_sizes": (32, 64),
}
LIMITS_MS = (20.0, 30.0, 40.0, 50.0, 60.0)
_SECONDS = 300.0


def watch_space(width: int) -> SearchSpace:
    """Networks of alike llama layers in the range of the measured models.

    Alike, since the makers' program has one group size for a whole file: then the price of a block is that of its network.
    """
    return SearchSpace((Menu((width,), **_CHOICES),), shared=False, vocabulary=VOCABULARY, family="llama", tied=True)


@dataclass(frozen=True)
class _Found:
    """The proved optimum over all widths under a limit by some table."""

    design: Architecture
    entropy: float


def _best(table: LatencyTable, limit_ms: float) -> _Found | None:
    """The best design of all widths; None if there isn't one. RuntimeError if it is not proved in time."""
    space = SpaceUnion(tuple(map(watch_space, RESIDUAL_WIDTHS)))
    budget = Budget(Latency(table), limit_ms)
    problem = DesignProblem(space, EffectiveEntropy(), (budget,))  # type: ignore[arg-type]  # a union stands in for a space
    solution = solve(problem, DynamicProgramming(), Limits(seconds=_SECONDS))
    if solution.status is Status.INFEASIBLE:
        return None
    if solution.status is not Status.OPTIMAL or solution.architecture is None or solution.objective is None:
        raise RuntimeError(f"no proof under {limit_ms:g} ms within {_SECONDS:g} s: {solution.message}")
    return _Found(solution.architecture, solution.objective)


def compare_designs(knowing: LatencyTable, blind: LatencyTable, limits_ms: Sequence[float] = LIMITS_MS) -> dict[str, Any]:
    """For each limit the proved optimum by a table that knows the cliff and by one that does not, both timed by the former.

    Where the blind design does not meet the limit, `meeting` is the best that it can be made to: its limit is lowered until its
    optimum is predicted, by the table that knows, to meet the true one.
    """
    rows = []
    for limit in limits_ms:
        own, other = _best(knowing, limit), _best(blind, limit)
        row: dict[str, Any] = {"limit_ms": limit}
        for name, found in (("knowing", own), ("blind", other), ("meeting", _meeting(knowing, blind, limit, other))):
            row[name] = found and {
                "design": str(found.design),
                "architecture": found.design.to_dict(),
                "entropy": found.entropy,
                "predicted_ms": Latency(knowing)(found.design),
                "predicted_blind_ms": Latency(blind)(found.design),
            }
        rows.append(row)
    choices = {name: list(entries) for name, entries in _CHOICES.items()}
    return {
        "widths": list(RESIDUAL_WIDTHS),
        **choices,
        "designs": sum(watch_space(width).size for width in RESIDUAL_WIDTHS),
        "rows": rows,
    }


def _meeting(knowing: LatencyTable, blind: LatencyTable, limit: float, found: _Found | None) -> _Found | None:
    """The optimum by the blind table under the largest of its limits, in steps of 5 %, whose optimum really meets the limit."""
    asked = limit
    while found is not None and Latency(knowing)(found.design) > limit:
        asked *= 0.95
        found = _best(blind, asked)
    return found
