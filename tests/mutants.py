"""Do the tests see a fault? Each mutant is one small fault in one file, and names the tests that should fail because of it.

    python -m tests.mutants                      all of them, some ten seconds each
    python -m tests.mutants --only completion    those in files, or with texts, that hold the word

A mutant is put into a copy of the tree. One that its tests do not notice has survived: it needs a test or, where no test can tell
it from the original, a reason. The exit code is 1 where one survived without a reason, or where the table is stale.
"""

from __future__ import annotations

import argparse
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("formulation", "solvers", "hardware_models", "merino_net", "studies", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: path from the project's root.
        old: text that occurs in the file exactly once.
        new: what stands there instead.
        tests: arguments of pytest for tests of which one at least should fail.
        reason: why no test can, in which case none is run; empty for all others.
    """

    file: str
    old: str
    new: str
    tests: str
    reason: str = ""

    def __str__(self) -> str:
        def short(text: str) -> str:
            text = " ".join(text.split())
            return text if len(text) <= 70 else text[:68] + " …"

        return f"{self.file}: {short(self.old)} → {short(self.new) or 'nothing'}"


LYING = "tests/solvers/test_lying_solver.py"
EDGES = "tests/solvers/test_knife_edge.py"
BOUNDS = "tests/solvers/test_completion.py"
COMPOSITES = "tests/formulation/test_composites.py"
STOPS = "tests/solvers/test_stops.py"
GAMMA = "tests/formulation/test_gamma.py"
MENUS = "tests/formulation/test_menus.py"
FIT = "tests/hardware_models/test_fit.py"
FORWARD = "tests/merino_net/test_net_forward.py"
FUZZ = "tests/test_fuzz.py"
COUNTS = "tests/solvers/test_dynamic_programming.py -k count"
BUDGETS = "tests/solvers/test_dynamic_programming.py -k several"
ALTERNATIVES = "tests/solvers/test_alternatives.py -k 'reordered or orders or near or rules'"
DEFINITIONS = "tests/formulation/test_formulation.py tests/formulation/test_blockwise_entropy.py -k 'not solvers and not importing'"
REDUCED = "tests/solvers/test_reduction.py"
SIGNS = "tests/solvers/test_soundness.py -k 'below_zero and not engines'"

BASE, DP, COMPLETION = "solvers/base.py", "solvers/exact/dynamic_programming.py", "solvers/exact/bounds.py"
LABELS, REDUCTION, CHOICES = "solvers/exact/label_pass.py", "solvers/exact/reduction.py", "solvers/programs/choice_program.py"
SPACE = "formulation/space.py"
LAYERED = "formulation/layered.py"
SCORES, TABLES = "formulation/score_file.py", "tests/formulation/test_score_table.py"
IDENTITY, FINGERPRINT = "formulation/fingerprint.py", "tests/formulation/test_fingerprint.py"
ARRANGEMENTS = "solvers/arrangements.py"
ENTROPY, MODEL, FITTING = "formulation/entropy.py", "merino_net/network/modeling_merino.py", "hardware_models/fit.py"
LAYER, UNIONS = "formulation/layer.py", "tests/solvers/test_unions.py"
ROOFLINE, ROOF = "hardware_models/roofline.py", "tests/hardware_models/test_roofline.py"

LINEARIZATION = "solvers/programs/linearization.py"
PROGRAM = "solvers/programs/pyomo_model.py"
PROGRAM_TEXT = "solvers/programs/program_text.py"
EXPORTED = "tests/solvers/test_program_text.py"
HALVES, ENUMERATED = "solvers/fronts/enumeration.py", "tests/solvers/test_fronts_enumeration.py -x -k 'not paper'"

MUTANTS = (
    # What `solve` believes.
    Mutant(BASE, "_AGREEMENT = 1e-9", "_AGREEMENT = 1e-3", LYING),
    Mutant(BASE, "answer.infeasible and answer.architecture is None and", "answer.infeasible and", LYING),
    Mutant(BASE, "max(objective, min(bound, _most(problem)))", "bound", f"{TABLES} -k nothing"),
    # Score tables.
    Mutant(SCORES, "if first != row:", "if first > row:", f"{TABLES} -k wrong"),
    Mutant(SCORES, "order.sort(key=int)", "order.sort()", f"{TABLES} -k whole_numbers"),
    Mutant(SCORES, "_NUMBER.fullmatch(cell) is not None and", "", f"{TABLES} -k wrong"),
    Mutant("formulation/score_table.py", "exchangeable = False", "exchangeable = True", f"{TABLES} -k exchanged"),
    Mutant("formulation/table.py", "& np.any(terms > 0, axis=1)", "", f"{TABLES} -k cancel"),
    # What is known of a union of spaces.
    Mutant(BASE, "return max(part.bound for part in self.parts)", "return min(part.bound for part in self.parts)", UNIONS),
    Mutant(BASE, "all(part.infeasible for part in self.parts)", "any(part.infeasible for part in self.parts)", UNIONS),
    Mutant(BASE, "start=part.best), cutoff=self.objective)", "start=part.best), cutoff=2 * self.objective)", UNIONS),
    Mutant(BASE, "above = max(bound - objective, 0.0)", "above = 10 * max(bound - objective, 0.0)", LYING),
    Mutant(BASE, "max(abs(objective), sys.float_info.min)", "max(objective, sys.float_info.min)", LYING),
    Mutant(BASE, "max(abs(objective), sys.float_info.min)", "max(abs(objective), 1e-12)", LYING),
    Mutant("formulation/values.py", "if not math.isfinite(value):", "if math.isinf(value):", "tests/formulation/test_values.py"),
    Mutant(
        "hardware_models/condition.py",
        "not any(width % number for width in widths)",
        "any(width % number == 0 for width in widths)",
        "tests/hardware_models/test_latency.py -k conditions_on_widths",
    ),
    Mutant(
        "hardware_models/latency.py",
        "        if position == 0:\n            value += self._conditional_price",
        "        if position >= 0:\n            value += self._conditional_price",
        "tests/hardware_models/test_latency.py -k conditional_price",
    ),
    Mutant(
        "hardware_models/latency.py",
        "return block.heads * block.head_size == block.width",
        "return True",
        "tests/hardware_models/test_latency.py -k not_validated",
    ),
    Mutant(
        "formulation/values.py",
        "undefined = ~np.isfinite(values) if among is None",
        "undefined = np.isinf(values) if among is None",
        "tests/formulation/test_values.py",
    ),
    Mutant(
        IDENTITY,
        "for name, item in fields.items() if item is None or (",
        "for name, item in fields.items() if not item or (",
        FINGERPRINT,
    ),
    Mutant(IDENTITY, "(name in silent and item == silent[name])", "name in silent", FINGERPRINT),
    Mutant(IDENTITY, "(name in silent and item == silent[name])", "False", FINGERPRINT),
    Mutant(IDENTITY, '(revision := getattr(kind, "revision", 1)) != 1', "(revision := 1) != 1", FINGERPRINT),
    Mutant(IDENTITY, 'if "<" not in kind.__qualname__ and _room(', 'if "<" in kind.__qualname__ or _room(', FINGERPRINT),
    Mutant(IDENTITY, "_globals_of(kind)) is _Room.OURS:", "_globals_of(kind)) is not None:", FINGERPRINT),
    Mutant(IDENTITY, "return package if names.get(thing.__qualname__) is thing else module", "return module", FINGERPRINT),
    Mutant(IDENTITY, "if names.get(thing.__qualname__) is thing else", "if thing.__qualname__ in names else", FINGERPRINT),
    Mutant("formulation/quantity.py", "sum(map(as_float, terms))", "sum(terms)", "tests/formulation/test_values.py"),
    Mutant(
        "formulation/declarations.py",
        "better = points[p].max() if sign > 0 else points[p].min()",
        "better = points[p].max()",
        "tests/formulation/test_values.py",
    ),
    Mutant(
        "formulation/declarations.py",
        "wrong = inside[sign * (values[inside] - estimate) > _ROUNDING * size]",
        "wrong = inside[sign * (estimate - values[inside]) > _ROUNDING * size]",
        "tests/formulation/test_values.py",
    ),
    Mutant(BASE, "bound = min(known, default=None)", "bound = max(known, default=None)", LYING),
    Mutant(BASE, "gap <= max(limits.gap, ROUNDING)", "gap <= max(limits.gap, 1e-4)", LYING),
    Mutant(BASE, "\nROUNDING = 1e-12", "\nROUNDING = 1e-7", LYING),
    Mutant(BASE, "architecture = max(candidates, key=", "architecture = min(candidates, key=", LYING),
    Mutant(BASE, "if not used.within)", "if used.within)", LYING),
    Mutant(BASE, "return value if math.isfinite(value) else None", "return value", LYING),
    Mutant(BASE, "limits = replace(limits, start=None)", "pass", LYING),
    Mutant(BASE, "_OVERSTATED = 1e-6", "_OVERSTATED = 1e6", LYING),
    Mutant(
        BASE,
        "objective - bound > _AGREEMENT * abs(objective):\n        bound = None",
        "bound < -objective:\n        bound = None",
        LYING,
    ),
    Mutant(BASE, "or isinstance(bound, bool):", "or False:", LYING),
    # Rooflines.
    Mutant(ROOFLINE, "range(work.attended, work.attended + times)", "range(work.attended, work.attended + times + 1)", ROOF),
    Mutant(ROOFLINE, "(block.depth - read) * applied_again", "(block.depth - read) * applied", ROOF),
    Mutant(ROOFLINE, "layer.weights * bits / 8 <= cache.value", "layer.weights * bits / 8 < cache.value", ROOF),
    Mutant(ROOFLINE, "if block.bits is None else block.bits", "if True else block.bits", ROOF),
    Mutant(ROOFLINE, "len(layer.norms) + 1 + 2", "len(layer.norms) + 1", ROOF),
    Mutant(ROOFLINE, "1e3 * self._powers[1] *", "1e3 * self._powers[0] *", ROOF),
    # The objective, the problem, the space.
    Mutant(ENTROPY, "for part in self.parts[1:3]:", "for part in self.parts[1:2]:", GAMMA),
    Mutant(ENTROPY, "np.argmax(np.arange(len(least)) ** 2 / least)", "np.argmax(np.arange(len(least)) / least)", GAMMA),
    Mutant(
        ENTROPY,
        "np.where(menu.layers > 0, most / bits[menu], 0.0)",
        "np.where(menu.layers > 0, menu.layers / bits[menu], 0.0)",
        GAMMA,
    ),
    Mutant(ENTROPY, "math.log2(min(block.width, block.ffn_width))", "math.log2(block.width)", GAMMA),
    Mutant(ENTROPY, "min(block.width for block in layered)", "max(block.width for block in layered)", GAMMA),
    Mutant(
        LAYERED,
        "before = np.where(step[:, :, None], reach[:, None], np.inf)",
        "before = reach[:, None] + 0 * step[:, :, None]",
        GAMMA,
    ),
    Mutant(
        LAYERED,
        "[(state, items[layered], True, False), (state, items[~layered], True, True)]",
        "[(state, items, True, False)]",
        MENUS,
    ),
    Mutant(SPACE, "(block.width, row.tobytes(), column.tobytes())", "(block.width, row.tobytes(), b'')", MENUS),
    Mutant(
        ENTROPY,
        "(gamma := max(self.effectiveness_of(architecture))) >= 1:",
        "(gamma := max(self.effectiveness_of(architecture))) > 1:",
        GAMMA,
    ),
    Mutant(ENTROPY, "upper[..., 0] ** 2 / lower[..., log_part]", "upper[..., 0] ** 2 / upper[..., log_part]", DEFINITIONS),
    Mutant(
        ENTROPY,
        "constant += weight * self._discount * depth * loss",
        "constant += 0.9 * weight * self._discount * depth * loss",
        DEFINITIONS,
    ),
    Mutant("formulation/problem.py", "\n_ROUNDING = 1e-12", "\n_ROUNDING = 1e-6", EDGES),
    Mutant("formulation/problem.py", "math.copysign(10 * _ROUNDING, value)", "math.copysign(_ROUNDING / 2, value)", EDGES),
    Mutant(
        SPACE,
        "np.less_equal.outer(left, right)",
        "np.less.outer(left, right)",
        DEFINITIONS,
    ),
    # Exhaustive search.
    Mutant(
        "solvers/exact/exhaustive.py",
        "stack.append((chosen[portion:], totals[:, portion:]))",
        "stack.append((chosen[portion + 1 :], totals[:, portion + 1 :]))",
        STOPS,
    ),
    Mutant("solvers/exact/exhaustive.py", "run.evaluations < problem.space.size:", "run.evaluations <= problem.space.size:", STOPS),
    Mutant(
        "solvers/exact/exhaustive.py",
        "        if not len(items):\n            continue",
        "        if False:\n            continue",
        STOPS,
    ),
    # The network.
    Mutant(MODEL, "self.layers[i % len(self.layers)]", "self.layers[0]", FORWARD),
    Mutant(MODEL, "scaling=self.head_size**-0.5", "scaling=x_BTE.shape[-1] ** -0.5", FORWARD),
    Mutant(MODEL, "scaling=self.head_size**-0.5", "scaling=self.head_sizes[-1] ** -0.5", FORWARD),
    Mutant(MODEL, "x_BTE + self.dropout(attended)", "x_BTE + attended", FORWARD),
    Mutant(MODEL, "x_BTE + self.dropout(self.ffn(self.ffn_norm(x_BTE)))", "x_BTE + self.ffn(self.ffn_norm(x_BTE))", FORWARD),
    Mutant(MODEL, "self.positions(position_ids + self.first_position)", "self.positions(position_ids)", FORWARD),
    Mutant(
        MODEL, "self.activation(self.gate(x_BTE)) * self.up(x_BTE)", "self.activation(self.up(x_BTE)) * self.gate(x_BTE)", FORWARD
    ),
    Mutant(
        MODEL,
        "        x_BTE = self.dropout(x_BTE)\n",
        "",
        FORWARD,
    ),
    Mutant(MODEL, "self.config.attention_dropout if self.training else 0.0", "0.0", FORWARD),
    Mutant(MODEL, "self.config.attention_dropout if self.training else 0.0", "self.config.attention_dropout", FORWARD),
    Mutant(MODEL, "weights = nn.functional.dropout(weights, dropout, module.training)", "", FORWARD),
    Mutant(MODEL, "(width, config.layer_norm_eps)", "(width)", FORWARD),
    Mutant(MODEL, "ACT2FN[config.hidden_act]", "ACT2FN['relu']", FORWARD),
    Mutant(MODEL, "x_BTE = x_BTE + self.dropout(attended)", "x_BTE = self.attention_norm(x_BTE) + self.dropout(attended)", FORWARD),
    # Prices fitted to measurements, and costs.
    Mutant(FITTING, "fit(x[~held], y[~held])", "fit(x, y)", FIT),
    Mutant(FITTING, "math.ceil((count + 1) * probability - 1e-9)", "math.ceil(count * probability - 1e-9)", FIT),
    Mutant(FITTING, "relative = np.abs(p - m) / m", "relative = np.abs(p - m) / p", FIT),
    Mutant(
        LAYER,
        "return 2 * tokens * attended * (self.query_width + self.value_width)",
        "return 4 * tokens * attended * self.value_width",
        "tests/formulation/test_decisions.py -k 'head_size'",
    ),
    Mutant(
        LAYER,
        "self.weights + self.bias * self.outputs",
        "self.weights",
        "tests/formulation/test_formulation.py -k 'params or published'",
    ),
    # Dynamic programming.
    Mutant(DP, "place(composite.parts), budget.limit)", "place(composite.parts), 1.02 * budget.limit)", EDGES),
    Mutant(DP, "rows, budget.limit))", "rows, 0.98 * budget.limit))", EDGES),
    Mutant(DP, "[budget.limit for budget in sums]", "[1.02 * budget.limit for budget in sums]", BUDGETS),
    Mutant(DP, "[budget.limit for budget in maxima]", "[1.02 * budget.limit for budget in maxima]", EDGES),
    Mutant(DP, "_TOTALS_APART = 2.0**44", "_TOTALS_APART = 2.0**24", EDGES),
    Mutant(DP, "self.best + self.run.limits.gap * abs(self.best)", "self.best + 3 * self.run.limits.gap * abs(self.best)", STOPS),
    Mutant(
        DP,
        "self.best + self.run.limits.gap * abs(self.best)",
        "self.best + self.run.limits.gap * self.best",
        SIGNS,
        "the threshold is lower where the best is negative: less is dropped, and the search proves the same later",
    ),
    Mutant(DP, "self.dropped = max(self.dropped, float(within.max()))", "pass", "tests/solvers/test_soundness.py -k loose"),
    Mutant(
        DP,
        "bound = max(self.dropped, self.best, self.open",
        "bound = max(self.best, self.open",
        "tests/solvers/test_soundness.py -k loose",
    ),
    Mutant(DP, "max(float(open_.bounds[0]) for", "min(float(open_.bounds[0]) for", STOPS),
    Mutant(DP, "labels.pick(slice(done, None))", "labels.pick(slice(done + 1, None))", STOPS),
    Mutant(DP, "self.best = max(self.best, self.run.cutoff)", "pass", "tests/solvers/test_automatic.py -k meanwhile"),
    Mutant(BASE, 'self.halted = "memory used up"', "pass", "tests/solvers/test_memory.py -k wherever"),
    Mutant(
        "solvers/automatic.py", "bound, proof = min(bounds", "bound, proof = max(bounds", "tests/solvers/test_automatic.py -k limit"
    ),
    Mutant(DP, "np.add.at(ways, twin, labels.ways)", "ways[twin] += labels.ways", COUNTS),
    Mutant(DP, "return self.floor - ", "return self.floor + ", COUNTS),
    Mutant(
        DP,
        "most = np.maximum(coefficients * lower, coefficients * upper)",
        "most = np.minimum(coefficients * lower, coefficients * upper)",
        COMPOSITES,
    ),
    Mutant(DP, "space.size >= 2**63", "space.size >= 2**70", COUNTS),
    Mutant(DP, "return search.counted, search.ended", "return search.counted, True", COUNTS),
    Mutant(DP, "possible &= self.sorted.allow(block, chosen[:, -2], items)", "pass", ALTERNATIVES),
    Mutant(DP, "self.sorted.ranks[block][labels.chosen[:, -1]]", "labels.state", ALTERNATIVES),
    Mutant(ARRANGEMENTS, "own[i].start < other[j].stop and other[j].start < own[i].stop", "own[i] == other[j]", ALTERNATIVES),
    Mutant(ARRANGEMENTS, "most - differing + differing * named", "most - differing", ALTERNATIVES),
    Mutant(DP, "most + _EQUAL * abs(most)", "most - 1e-6 * abs(most)", EDGES),
    Mutant(DP, "np.all(lower <= upper, axis=1)", "np.all(lower < upper, axis=1)", f"{COMPOSITES} {STOPS}"),
    Mutant(DP, "& (layers <= cells.layers[cell])", "& (layers < cells.layers[cell])", EDGES),
    Mutant(
        DP,
        "labels.layers == cells.layers[labels.cell]",
        "labels.layers <= cells.layers[labels.cell]",
        COUNTS,
        "a whole design with layers left has the bound −∞ in every cell and is dropped before",
    ),
    Mutant(DP, "self.counted += counted if self.run.stopped else 0", "self.counted += counted", STOPS),
    # Completion bounds.
    Mutant(COMPLETION, "\n_SAFETY = 1e-9", "\n_SAFETY = -1e-7", BOUNDS),
    Mutant(COMPLETION, "stop = min(before + depth, reach) + 1", "stop = min(before + depth, reach)", BOUNDS),
    Mutant(LAYERED, "tuple(slice(start, stop) for start, stop in", "tuple(slice(start, stop - 1) for start, stop in", BOUNDS),
    Mutant(
        COMPLETION,
        "max(fixed, *(block[row].min() for block in table.blocks))",
        "max(fixed, *(block[row].max() for block in table.blocks))",
        COMPOSITES,
    ),
    Mutant(COMPLETION, "upper[:, p] = np.maximum(high, fixed)", "upper[:, p] = high", BOUNDS),
    Mutant(COMPLETION, "fixed - ends[0], fixed + ends[1]", "fixed - ends[0], fixed - ends[0]", BOUNDS),
    Mutant(COMPLETION, "weights[..., p] += sign", "weights[..., p] -= sign", BOUNDS),
    Mutant(COMPLETION, "cells.of_nothing(table) - at_least", "cells.of_nothing(table) - 1.01 * at_least", BOUNDS),
    Mutant(
        COMPLETION,
        "table.fixed[rows] - self._to_come[:, 0]",
        "table.fixed[rows] + self._to_come[:, 0]",
        "tests/solvers/test_two_sided.py -k range",
    ),
    Mutant(COMPLETION, "int(room / self._unit + 1e-6)", "int(room / self._unit) - 1", BOUNDS),
    Mutant(COMPLETION, "steps = np.floor(np.tensordot(", "steps = np.ceil(np.tensordot(", BOUNDS),
    Mutant(COMPLETION, "& (left >= 0) & (room >= 0)", "& (left >= 0) & (room > 0)", BOUNDS),
    Mutant(COMPLETION, "int(cells.layers.min() - deep[:block].sum())", "int(cells.layers.max() - deep[:block].sum())", BOUNDS),
    Mutant(
        COMPLETION,
        "np.flatnonzero(allowed[block] & (costs <= self._steps))",
        "np.flatnonzero(allowed[block] & (costs < self._steps))",
        BOUNDS,
    ),
    Mutant(COMPLETION, "1.0, 0.6, 0.8, 0.9, 1.1, 1.25, 1.6)", "1.0, -0.6, 0.8, 0.9, 1.1, 1.25, 1.6)", BOUNDS),
    Mutant(COMPLETION, "np.concatenate((values, -sums), axis=2)", "np.concatenate((values, sums), axis=2)", BOUNDS),
    Mutant(COMPLETION, "= np.maximum(point[:, :kinds], 0.0)", "= point[:, :kinds]", BOUNDS),
    Mutant(
        COMPLETION,
        "\n    room = cells.limits - table.fixed[cells.costs]",
        "\n    room = 0.9 * cells.limits - table.fixed[cells.costs]",
        BOUNDS,
    ),
    Mutant(
        COMPLETION,
        "left = self.cells.layers[cell] - layers - self._fewest[block]",
        "left = self.cells.layers[cell] - layers - self._fewest[0]",
        BOUNDS,
    ),
    Mutant(COMPLETION, "float(direction[used[0]]) * math.gcd(", "float(direction[used[0]]) * 2 * math.gcd(", BOUNDS),
    Mutant(LINEARIZATION, "self.model.linear.add(variable <= high * chosen)", "pass", EXPORTED),
    Mutant(LINEARIZATION, "self.model.linear.add(total == value.expression)", "pass", EXPORTED),
    Mutant(LINEARIZATION, "self.model.linear.add(sum(pieces.values()) == value.expression)", "pass", EXPORTED),
    Mutant(LINEARIZATION, "self.model.linear.add(sum(self._depths.values()) == 1)", "pass", EXPORTED),
    Mutant(LINEARIZATION, "line[0] * layers + line[1]", "line[0] * layers", EXPORTED),
    Mutant("solvers/programs/rational.py", "one.divisors + by[0].factors", "one.divisors", EXPORTED),
    Mutant(PROGRAM, "if not own.every_depth:", "if False:", "tests/solvers/test_program_text.py -k nonlinear_file"),
    Mutant(PROGRAM_TEXT, "objective.sense = pyo.minimize", "pass", EXPORTED),
    Mutant(PROGRAM_TEXT, "max(program.unit, 1.0) *", "1.0 *", EXPORTED),
    Mutant(LABELS, "choice.limits[:, None] - rest", "choice.limits[:, None] - 1.5 * rest", f"{REDUCED} -k brute"),
    Mutant(LABELS, "(no_worse & (~no_better | later)).any(", "no_worse.any(", f"{REDUCED} -k brute"),
    Mutant(LABELS, "np.arange(len(losses)) >= labels", "np.arange(len(losses)) > labels", f"{REDUCED} -k alike"),
    Mutant(LABELS, "max([self.target, *(float(labels.bounds.max())", "max([self.target, *(self.target", f"{REDUCED} -k stopped"),
    Mutant(REDUCTION, "displaced |= current.merged", "displaced |= False", f"{REDUCED} -k hides"),
    Mutant(REDUCTION, "self.value + _WITHIN)", "self.value + 1 + _WITHIN)", f"{REDUCED} -k brute"),
    Mutant(REDUCTION, "if self.impossible or self.target < self.floor", "if self.target < self.floor", f"{REDUCED} -k spite"),
    Mutant(CHOICES, "if careful or not closed:", "if True:", f"{REDUCED} -k believed"),
    Mutant(CHOICES, "if careful:", "if True:", f"{REDUCED} -k believed"),
    # Fronts combined from two halves.
    Mutant(HALVES, "rises = signs > 0 if number == 0 else signs < 0", "rises = signs > 0", ENUMERATED),
    Mutant(HALVES, "np.array([[False, True], [True, True]])", "np.array([[True, True], [True, True]])", ENUMERATED),
    Mutant(
        HALVES,
        "np.stack((halves.first, halves.last * (not complete), halves.layered))",
        "np.stack((halves.first, halves.first, halves.layered))",
        ENUMERATED,
    ),
    Mutant(
        HALVES,
        "np.floor(places) + 1, np.ceil(places)",
        "np.floor(places), np.floor(places)",
        ENUMERATED,
    ),
    Mutant(HALVES, "own[int(rises == sign), row] for own in ends", "own[int(rises != sign), row] for own in ends", ENUMERATED),
    Mutant(
        HALVES,
        "(np.maximum if is_max else np.add)(own, joint, out=own)",
        "(np.maximum if is_max else np.add)(own, 0 * joint, out=own)",
        ENUMERATED,
    ),
    Mutant(HALVES, "not (doubtful[n] and broken_budgets", "not (False and broken_budgets", ENUMERATED),
    Mutant(HALVES, "> _ROUNDING * ends).any()", "> 1e9 * ends).any()", ENUMERATED),
)


def stale(root: Path) -> list[str]:
    """What is wrong with the table: texts that do not occur exactly once, mutants that no Python reads, tests that do not exist."""
    wrong = []
    for mutant in MUTANTS:
        text = (root / mutant.file).read_text(encoding="utf-8")
        if (count := text.count(mutant.old)) != 1:
            wrong.append(f"{mutant}: the text occurs {count} times; expected once")
            continue
        try:
            compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
        except SyntaxError as error:
            wrong.append(f"{mutant}: {error}")
        missing = [word for word in mutant.tests.split() if word.endswith(".py") and not (root / word).is_file()]
        wrong += [f"{mutant}: there is no {name}" for name in missing]
    return wrong


def _pytest(tree: Path, tests: str, seconds: float) -> int | None:
    """The exit code of some tests in a copy of the tree; None if they did not end in time."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=no", *shlex.split(tests)]
    output = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=tree, env=environment, stdout=output, stderr=output, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None


def _copy(into: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, into / name)
    return into


def survives(mutant: Mutant, tree: Path, seconds: float) -> bool:
    """Whether all of its tests pass with the mutant in the tree, which is put back."""
    file = tree / mutant.file
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return _pytest(tree, mutant.tests, seconds) == 0
    finally:
        file.write_text(original, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a mutant survived without a reason, or the table is stale."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only mutants in files, or with texts, that hold this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: one per core)")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="after which tests that have not ended count as failed (default: 600)"
    )
    options = parser.parse_args(arguments)
    if wrong := stale(ROOT):
        print("the table is stale:", *wrong, sep="\n")
        return 1
    chosen = [mutant for mutant in MUTANTS if options.only in f"{mutant.file} {mutant.old} {mutant.new}"]
    tried = [mutant for mutant in chosen if not mutant.reason]
    if not tried:
        parser.error(f"no mutant holds {options.only!r}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(options.jobs):
            (Path(folder) / str(number)).mkdir()
            trees.put(_copy(Path(folder) / str(number)))
        lock, started, done = threading.Lock(), time.monotonic(), 0

        def with_tree(mutant: Mutant | None, tests: str = "") -> bool:
            nonlocal done
            tree = trees.get()
            try:
                if mutant is None:
                    return _pytest(tree, tests, options.seconds) == 0
                survived = survives(mutant, tree, options.seconds)
            finally:
                trees.put(tree)
            with lock:
                done += 1
                seconds = time.monotonic() - started
                print(f"{done}/{len(tried)} {seconds:.0f} s  {'SURVIVED' if survived else 'killed'}  {mutant}", flush=True)
            return survived

        # A test that fails without any mutant would kill them all.
        selections = sorted({mutant.tests for mutant in tried})
        failing = [
            tests
            for tests, passed in zip(selections, pool.map(lambda t: with_tree(None, t), selections), strict=True)
            if not passed
        ]
        if failing:
            print("these tests fail without any mutant, so they show nothing:", *failing, sep="\n")
            return 1
        survivors = [mutant for mutant, survived in zip(tried, pool.map(with_tree, tried), strict=True) if survived]
    excused = [mutant for mutant in chosen if mutant.reason]
    print(
        f"{len(tried) - len(survivors)} of {len(tried)} mutants killed, {len(excused)} more that no test can tell from the original"
    )
    for mutant in excused:
        print(f"the same as the original  {mutant}: {mutant.reason}")
    for mutant in survivors:
        print(f"SURVIVED  {mutant}\n    tests: {mutant.tests}")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
