"""How a design problem is solved: `solve(problem, solver, limits)`, and the solvers."""

from solvers.base import Answer, EngineMissing, Limits, Run, Solution, Solver, Status, TracePoint, solve
from solvers.cbc import Cbc
from solvers.dynamic_programming import DynamicProgramming
from solvers.evolutionary import EvolutionaryAlgorithm
from solvers.exhaustive import Exhaustive
from solvers.genetic import GeneticAlgorithm
from solvers.highs import Highs
from solvers.program_text import program_text
from solvers.pyomo_model import Form, Program, build_program
from solvers.random_search import RandomSearch
from solvers.scip import Scip

__all__ = [
    "Answer",
    "Cbc",
    "DynamicProgramming",
    "EngineMissing",
    "EvolutionaryAlgorithm",
    "Exhaustive",
    "Form",
    "GeneticAlgorithm",
    "Highs",
    "Limits",
    "Program",
    "RandomSearch",
    "Run",
    "Scip",
    "Solution",
    "Solver",
    "Status",
    "TracePoint",
    "build_program",
    "program_text",
    "solve",
]
