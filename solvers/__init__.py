"""How a design problem is solved: `solve(problem, solver, limits)`, and the solvers."""

from solvers.base import Answer, EngineMissing, Limits, Run, Solution, Solver, Status, TracePoint, solve
from solvers.cbc import Cbc
from solvers.cp_sat import CpSat
from solvers.dynamic_programming import Count, DynamicProgramming, count_designs
from solvers.evolutionary import EvolutionaryAlgorithm
from solvers.exhaustive import Exhaustive
from solvers.genetic import GeneticAlgorithm
from solvers.highs import Highs
from solvers.nsga2 import nsga2_front
from solvers.pareto import Box, Found, Front, Point, check_certificate, exact_front, exhaustive_front, hypervolume, reference_costs
from solvers.program_text import program_text
from solvers.pyomo_model import Form, Program, build_program
from solvers.random_search import RandomSearch
from solvers.scip import Scip

__all__ = [
    "Answer",
    "Box",
    "Cbc",
    "Count",
    "CpSat",
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
    "Point",
    "Program",
    "RandomSearch",
    "Run",
    "Scip",
    "Solution",
    "Solver",
    "Status",
    "TracePoint",
    "build_program",
    "check_certificate",
    "count_designs",
    "exact_front",
    "exhaustive_front",
    "hypervolume",
    "nsga2_front",
    "program_text",
    "reference_costs",
    "solve",
]
