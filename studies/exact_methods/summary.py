"""The numbers of the comparison of exact methods, and its tables in text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from formulation.command.words import counted, text_table
from formulation.records.provenance import provenance
from formulation.records.rows import Row
from studies.compare_solvers.cells import PROVED
from studies.exact_methods.apart import FAILED, REFUSED
from studies.exact_methods.instances import INSTANCES
from studies.exact_methods.trial import BARE, ENTRANTS, Trial

OWN = ("reduction", "counts", "dp", "exhaustive")
"""The toolkit's own methods."""
ENGINES = ("highs", "cpsat", "scip", "scip-lookup", "cbc")
"""Engines by the toolkit's routes."""
AUTOMATIC = "automatic"
_AGREE = 1e-6
"""Relative difference up to which two proved optima are one: the gap that a proof may leave."""
_ABOVE = 1e-9
"""Relative amount by which a design may exceed another method's bound and still be put down to rounding."""


@dataclass(frozen=True)
class MethodsPlan:
    """What is run.

    Attributes:
        instances: by name, small ones first.
        options: solvers by their name on the command line.
        seconds: time limit of a run.
        repeats: of each solver on each instance.
        hopeless: whether solvers are tried on instances although they did not prove the smaller one.
    """

    instances: tuple[str, ...]
    options: tuple[str, ...]
    seconds: float
    repeats: int
    hopeless: bool

    def of(self, instance: str, option: str) -> list[Trial]:
        """The runs of one solver on one instance."""
        return [Trial(instance, seed, option, self.seconds) for seed in range(self.repeats)]

    def trials(self) -> Iterator[Trial]:
        """All of them."""
        for instance in self.instances:
            for option in self.options:
                yield from self.of(instance, option)


@dataclass(frozen=True)
class Results:
    """What was run, by instance and solver.

    Attributes:
        rows: of the runs.
        untried: why there are none.
        missing: by solver alone: its engine is not installed.
    """

    rows: dict[tuple[str, str], list[Row]]
    untried: dict[tuple[str, str], str]
    missing: dict[str, str]


def proves(row: Row) -> bool:
    """Whether a run ended with a proof."""
    return row["status"] in PROVED


def methods_summary(plan: MethodsPlan, results: Results) -> dict[str, Any]:
    """The numbers of the study, ready for JSON."""
    distributions = {name for option in plan.options for name in ENTRANTS[option].distributions}
    rows = [row for own in results.rows.values() for row in own]
    return {
        "provenance": provenance(0, ("numpy", *sorted(distributions))),
        "seconds_limit": plan.seconds,
        "repeats": plan.repeats,
        "solvers": list(plan.options),
        "missing": dict(results.missing),
        "instances": [_instance_record(name, plan, results) for name in plan.instances],
        "certificates": list(certificate_records(rows)),
        "faults": [*faults_of(rows), *_refused_certificates(rows)],
        "alone": _proved_alone(rows),
    }


def _instance_record(name: str, plan: MethodsPlan, results: Results) -> dict[str, Any]:
    instance = INSTANCES[name]
    problem = instance.build(0)
    solvers = [_solver_record(name, option, results) for option in plan.options if (name, option) in results.rows]
    times = {each["option"]: each["seconds"] for each in solvers if each["seconds"] is not None}
    return {
        "instance": name,
        "kind": instance.kind,
        "positions": len(problem.space.menus),
        "items": max(len(menu) for menu in problem.space.menus),
        "designs": problem.space.size,
        "budgets": len(problem.subject_to),
        "solvers": solvers,
        "untried": {option: results.untried[name, option] for option in plan.options if (name, option) in results.untried},
        "fastest": min((option for option in times if option != BARE), key=lambda option: times[option], default=None),
        "own_over_engines": _ratio(times, (*OWN, AUTOMATIC), ENGINES),
        "own_over_bare": _ratio(times, (*OWN, AUTOMATIC), (BARE,)),
        "automatic_over_named": _ratio(times, (AUTOMATIC,), (*OWN, *ENGINES)),
    }


def _ratio(times: Mapping[str, float], ours: Iterable[str], others: Iterable[str]) -> float | None:
    """The least time of some solvers over the least time of others; None where either has none."""
    own, other = ([times[option] for option in group if option in times] for group in (ours, others))
    return min(own) / min(other) if own and other else None


def _solver_record(name: str, option: str, results: Results) -> dict[str, Any]:
    """Medians over the runs of a solver: of time only where most of them ended with a proof, as those without take longer still."""
    rows = results.rows[name, option]
    proved = sum(map(proves, rows))
    # A run without a proof would have taken longer than any with one.
    seconds = sorted(row["seconds"] for row in rows if proves(row))
    mostly = 2 * proved > len(rows)
    gaps = [row["gap"] for row in rows if row.get("gap") is not None]
    return {
        "option": option,
        "solver": rows[0]["solver"],
        "runs": len(rows),
        "proved": proved,
        "statuses": [row["status"] for row in rows],
        "seconds": _median_of([*seconds, *[float("inf")] * (len(rows) - proved)]) if mostly else None,
        "cpu_seconds": _median(rows, "cpu_seconds"),
        "memory_bytes": _median(rows, "memory_bytes"),
        "first_design_seconds": _median(rows, "first_design_seconds"),
        "first_bound_seconds": _median(rows, "first_bound_seconds"),
        "gap": max(gaps, default=None),
        "objectives": [row.get("objective") for row in rows],
        "bounds": [row.get("bound") for row in rows],
        "messages": list(dict.fromkeys(row["message"] for row in rows)),
    }


def _median_of(values: Sequence[float]) -> float | None:
    value = median(values)
    return None if value == float("inf") else value


def _median(rows: Sequence[Row], key: str) -> float | None:
    known = [row[key] for row in rows if row.get(key) is not None]
    return median(known) if known else None


def _by_problem(rows: Iterable[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """The rows of each problem: repeats of one that is not random are of the same."""
    problems: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        seed = row["seed"] if INSTANCES[row["instance"]].seeded else None
        problems.setdefault((row["instance"], seed), []).append(row)
    return problems


def _named(instance: str, seed: int | None) -> str:
    return instance if seed is None else f"{instance}, seed {seed}"


def faults_of(rows: Iterable[Row]) -> list[str]:
    """Sentences on proofs that contradict each other: two optima, an optimum where there is none, a design above a bound."""
    faults = []
    for (instance, seed), own in _by_problem(rows).items():
        where = _named(instance, seed)
        optima = [row for row in own if row["status"] == "optimal"]
        found = [row for row in own if row.get("objective") is not None]
        empty = ", ".join(dict.fromkeys(row["option"] for row in own if row["status"] == "infeasible"))
        values = [row["objective"] for row in optima]
        if values and max(values) - min(values) > _AGREE * abs(max(values)):
            said = dict.fromkeys(f"{row['option']} {row['objective']!r}" for row in optima)
            faults.append(f"{where}: the proved optima differ: {', '.join(said)}")
        if empty and found:
            faults.append(f"{where}: {empty} proved that there is no design, {found[0]['option']} found one")
        best = max(found, key=lambda row: row["objective"], default=None)
        for row in own:
            bound = row.get("bound") if row["option"] != BARE else None
            if best is not None and bound is not None and best["objective"] - bound > _ABOVE * abs(best["objective"]):
                design = f"the design of {best['option']}, {best['objective']!r}"
                faults.append(f"{where}: the bound {bound!r} of {row['option']} is below {design}")
    return faults


def _proved_alone(rows: Iterable[Row]) -> list[str]:
    """The problems whose proof has no other method's beside it, and whose it is; the reference is not a witness."""
    alone = []
    for (instance, seed), own in _by_problem(rows).items():
        provers = sorted({row["option"] for row in own if proves(row) and row["option"] != BARE})
        if len(provers) == 1:
            alone.append(f"{_named(instance, seed)} ({provers[0]})")
    return alone


def _refused_certificates(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if (certificate := row.get("certificate")) and certificate["verdict"] == "refused":
            yield f"{row['instance']}, seed {row['seed']}: the certificate of {row['option']} is refused: {certificate['message']}"


def certificate_records(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """What the checker said of the proofs of each solver."""
    proofs: dict[str, list[Row]] = {}
    for row in rows:
        if proves(row):
            proofs.setdefault(row["option"], []).append(row)
    for option, own in proofs.items():
        verdicts = [row["certificate"]["verdict"] if row.get("certificate") else "none" for row in own]
        seconds = [row["certificate"]["check_seconds"] for row in own if (row.get("certificate") or {}).get("check_seconds")]
        yield {
            "option": option,
            "proofs": len(own),
            "verdicts": {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
            "check_seconds": median(seconds) if seconds else None,
            "longest_check_seconds": max(seconds, default=None),
        }


# In text


def methods_text(summary: dict[str, Any]) -> str:
    """The study for people."""
    run = {each["option"] for one in summary["instances"] for each in one["solvers"]}
    options = [option for option in summary["solvers"] if option in run]
    parts = []
    for kind in dict.fromkeys(one["kind"] for one in summary["instances"]):
        own = [one for one in summary["instances"] if one["kind"] == kind]
        parts.append(
            f"{kind}: seconds to proof, or the gap after {summary['seconds_limit']:g} s\n{_table(own, options, _proof_text)}"
        )
        parts.append(f"{kind}: peak memory beyond the start, MiB\n{_table(own, options, _memory_text)}")
        parts.append(f"{kind}: CPU seconds\n{_table(own, options, lambda each: _seconds_text(each['cpu_seconds']))}")
        parts.append(
            f"{kind}: seconds to the first design\n{_table(own, options, lambda each: _seconds_text(each['first_design_seconds']))}"
        )
    parts.append(f"Who wins: least median of seconds, and ratios of least medians\n{_winners(summary['instances'])}")
    if lines := [_certificate_text(each) for each in summary["certificates"]]:
        parts.append("\n".join(["What python -m solvers.check says of the proofs:", *lines]))
    if summary["faults"]:
        parts.append("\n".join(["THE PROOFS DISAGREE", *summary["faults"]]))
    if summary["alone"]:
        parts.append(f"Proved by one method alone, so compared with no other: {'; '.join(summary['alone'])}")
    parts += [f"{option} was not run: {reason}" for option, reason in summary["missing"].items()]
    return "\n\n".join(parts)


def _table(instances: Sequence[dict[str, Any]], options: Sequence[str], text: Callable[[dict[str, Any]], str]) -> str:
    lines = []
    for one in instances:
        of = {each["option"]: text(each) for each in one["solvers"]}
        lines.append([one["instance"], *(of.get(option, "") for option in options)])
    return text_table(["", *options], lines, {0})


def _proof_text(each: dict[str, Any]) -> str:
    share = "" if each["proved"] in (0, each["runs"]) else f" ({each['proved']} of {each['runs']})"
    if each["seconds"] is not None:
        return _seconds_text(each["seconds"]) + share
    if REFUSED in each["statuses"]:
        return "-"
    if FAILED in each["statuses"]:
        return "failed"
    if each["objectives"][0] is None:
        return "found none"
    return ("no bound" if each["gap"] is None else f"gap {100 * each['gap']:.2g} %") + share


def _seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def _memory_text(each: dict[str, Any]) -> str:
    return "" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 2**20:.0f}"


def _winners(instances: Sequence[dict[str, Any]]) -> str:
    header = ["", "fastest", "own / engines", f"own / {BARE}", f"{AUTOMATIC} / best named"]
    ratios = ("own_over_engines", "own_over_bare", "automatic_over_named")
    lines = [
        [one["instance"], one["fastest"] or "-", *("" if one[ratio] is None else f"{one[ratio]:.2f}" for ratio in ratios)]
        for one in instances
    ]
    return text_table(header, lines, {0, 1})


def _certificate_text(each: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in each["verdicts"].items())
    times = (
        ""
        if each["check_seconds"] is None
        else (f"; a check takes {each['check_seconds']:.2f} s in the median, {each['longest_check_seconds']:.2f} s at most")
    )
    return f"  {each['option']}: {counted(each['proofs'], 'proof')}, {verdicts}{times}"
