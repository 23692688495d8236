"""What is wanted: architectures, search spaces, quantities, the entropy objective and the design problem."""

from formulation.architecture import Architecture, Block
from formulation.declarations import FalseDeclaration
from formulation.deployability import DEPLOYABILITIES, Deployability, deployability
from formulation.derived import Agreement, LayerSum, SumOverLayers
from formulation.entropy import BlockwiseEntropy, EffectiveEntropy, TransformerEntropy
from formulation.family import FAMILIES, Family
from formulation.fingerprint import NoIdentity, fingerprint
from formulation.layer import Group, Layer, LinearMap, Norm, layer_of, stored_layers
from formulation.menu import Menu
from formulation.model_file import read_config, read_model
from formulation.presets import PRESETS
from formulation.problem import Budget, DesignProblem, Evaluation, Usage
from formulation.published import PUBLISHED
from formulation.quantity import Combine, Composite, Measured, NotSeparable, Quantity, Separable, Summand
from formulation.score_file import ScoreTable, read_scores
from formulation.score_table import Column, Option, OptionMenu, OptionSpace, Selection
from formulation.space import SearchSpace, deep_space, fine_space, paper_space
from formulation.spectral import EntropyTable, Estimate, closed_form_entropy, monte_carlo_entropy, spectral_entropy
from formulation.table import Table, evaluator, tabulate
from formulation.union import SeveralSpaces, SpaceUnion, decided
from formulation.unseen import unseen
from formulation.values import Undefined

__all__ = [
    "DEPLOYABILITIES",
    "FAMILIES",
    "PRESETS",
    "PUBLISHED",
    "Agreement",
    "Architecture",
    "Block",
    "BlockwiseEntropy",
    "Budget",
    "Column",
    "Combine",
    "Composite",
    "Deployability",
    "DesignProblem",
    "EffectiveEntropy",
    "EntropyTable",
    "Estimate",
    "Evaluation",
    "FalseDeclaration",
    "Family",
    "Group",
    "Layer",
    "LayerSum",
    "LinearMap",
    "Measured",
    "Menu",
    "NoIdentity",
    "Norm",
    "NotSeparable",
    "Option",
    "OptionMenu",
    "OptionSpace",
    "Quantity",
    "ScoreTable",
    "SearchSpace",
    "Selection",
    "Separable",
    "SeveralSpaces",
    "SpaceUnion",
    "SumOverLayers",
    "Summand",
    "Table",
    "TransformerEntropy",
    "Undefined",
    "Usage",
    "closed_form_entropy",
    "decided",
    "deep_space",
    "deployability",
    "evaluator",
    "fine_space",
    "fingerprint",
    "layer_of",
    "monte_carlo_entropy",
    "paper_space",
    "read_config",
    "read_model",
    "read_scores",
    "spectral_entropy",
    "stored_layers",
    "tabulate",
    "unseen",
]
