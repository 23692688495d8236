"""How a design problem is solved: `solve(problem, solver, limits)`, and the solvers."""

import solvers.programs.pyomo_docstrings  # noqa: F401, comes before whatever imports Pyomo
from solvers.automatic import Automatic
from solvers.base import Answer, EngineMissing, Limits, Part, Run, Solution, Solver, Status, TracePoint, solve
from solvers.certificate import Certificate, Stated, Uncheckable
from solvers.certify import certified
from solvers.exact.counts import Counts
from solvers.exact.dynamic_programming import Count, DynamicProgramming, count_designs
from solvers.exact.exhaustive import Exhaustive
from solvers.exact.reduction import Reduction
from solvers.heuristics.evolutionary import EvolutionaryAlgorithm
from solvers.heuristics.genetic import GeneticAlgorithm
from solvers.heuristics.nsga2 import nsga2_front
from solvers.heuristics.random_search import RandomSearch
from solvers.programs.cbc import Cbc
from solvers.programs.cp_sat import CpSat
from solvers.programs.highs import Highs
from solvers.programs.program_text import program_text
from solvers.programs.pyomo_model import Form, Program, build_program
from solvers.programs.scip import Scip
from solvers.questions.alternatives import alternatives, count_exhaustively, count_near
from solvers.questions.diagnosis import Diagnosis, Need, explain_infeasibility
from solvers.questions.findings import Findings, design
from solvers.questions.pareto import (
    Box,
    Found,
    Front,
    Point,
    check_certificate,
    exact_front,
    exhaustive_front,
    hypervolume,
    reference_costs,
)
from solvers.questions.price import Breakpoint, Price, price_of_budgets

__all__ = [
    "Answer",
    "Automatic",
    "Box",
    "Breakpoint",
    "Cbc",
    "Certificate",
    "Count",
    "Counts",
    "CpSat",
    "Diagnosis",
    "DynamicProgramming",
    "EngineMissing",
    "EvolutionaryAlgorithm",
    "Exhaustive",
    "Findings",
    "Form",
    "Found",
    "Front",
    "GeneticAlgorithm",
    "Highs",
    "Limits",
    "Need",
    "Part",
    "Point",
    "Price",
    "Program",
    "RandomSearch",
    "Reduction",
    "Run",
    "Scip",
    "Solution",
    "Solver",
    "Stated",
    "Status",
    "TracePoint",
    "Uncheckable",
    "alternatives",
    "build_program",
    "certified",
    "check_certificate",
    "count_designs",
    "count_exhaustively",
    "count_near",
    "design",
    "exact_front",
    "exhaustive_front",
    "explain_infeasibility",
    "hypervolume",
    "nsga2_front",
    "price_of_budgets",
    "program_text",
    "reference_costs",
    "solve",
]
