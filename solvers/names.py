"""Every solver by the name that the command line gives it: the only table of solvers."""

from __future__ import annotations

from dataclasses import dataclass

from solvers import (
    Automatic,
    Cbc,
    Counts,
    CpSat,
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    Form,
    GeneticAlgorithm,
    Highs,
    RandomSearch,
    Reduction,
    Scip,
    Solver,
)


@dataclass(frozen=True)
class Entrant:
    """A solver in the comparison: whether chance plays a part, so that seeds matter, and whether it runs only where named."""

    solver: Solver
    seeded: bool = False
    extra: bool = False


SOLVERS: dict[str, Entrant] = {
    "exhaustive": Entrant(Exhaustive()),
    "dp": Entrant(DynamicProgramming()),
    # The exact solver without one of its ideas at a time: what each is worth.
    "dp-wide": Entrant(DynamicProgramming(rounds=1), extra=True),
    "dp-coarse": Entrant(DynamicProgramming(steps=512), extra=True),
    "dp-unmerged": Entrant(DynamicProgramming(merging=False), extra=True),
    "dp-ea": Entrant(DynamicProgramming(warm_start=EvolutionaryAlgorithm(iterations=2000)), seeded=True),
    "reduction": Entrant(Reduction(), extra=True),
    "counts": Entrant(Counts(), extra=True),
    "scip": Entrant(Scip()),
    "scip-lookup": Entrant(Scip(Form.LOOKUP)),
    "highs": Entrant(Highs()),
    "cbc": Entrant(Cbc()),
    "cpsat": Entrant(CpSat()),
    "ea": Entrant(EvolutionaryAlgorithm(), seeded=True),
    "ga": Entrant(GeneticAlgorithm(), seeded=True),
    "random": Entrant(RandomSearch(), seeded=True),
    "automatic": Entrant(Automatic()),
}
