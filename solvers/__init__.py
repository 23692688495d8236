"""How a design problem is solved: `solve(problem, solver, limits)`, and the solvers."""

import solvers.pyomo_docstrings  # noqa: F401, comes before whatever imports Pyomo
from solvers.alternatives import alternatives, count_exhaustively, count_near
from solvers.base import Answer, EngineMissing, Limits, Run, Solution, Solver, Status, TracePoint, solve
from solvers.cbc import Cbc
from solvers.cp_sat import CpSat
from solvers.diagnosis import Diagnosis, Need, explain_infeasibility
from solvers.dynamic_programming import Count, DynamicProgramming, count_designs
from solvers.evolutionary import EvolutionaryAlgorithm
from solvers.exhaustive import Exhaustive
from solvers.genetic import GeneticAlgorithm
from solvers.highs import Highs
from solvers.nsga2 import nsga2_front
from solvers.pareto import Box, Found, Front, Point, check_certificate, exact_front, exhaustive_front, hypervolume, reference_costs
from solvers.price import Breakpoint, Price, price_of_budgets
from solvers.program_text import program_text
from solvers.pyomo_model import Form, Program, build_program
from solvers.random_search import RandomSearch
from solvers.scip import Scip

__all__ = [
    "Answer",
    "Box",
    "Breakpoint",
    "Cbc",
    "Count",
    "CpSat",
    "Diagnosis",
    "DynamicProgramming",
    "EngineMissing",
    "EvolutionaryAlgorithm",
    "Exhaustive",
    "Form",
    "Found",
    "Front",
    "GeneticAlgorithm",
    "Highs",
    "Limits",
    "Need",
    "Point",
    "Price",
    "Program",
    "RandomSearch",
    "Run",
    "Scip",
    "Solution",
    "Solver",
    "Status",
    "TracePoint",
    "alternatives",
    "build_program",
    "check_certificate",
    "count_designs",
    "count_exhaustively",
    "count_near",
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
