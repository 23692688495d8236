"""Proxies as quantities: the analytic ones against the real network; black boxes by name, remembered, in several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from formulation import PUBLISHED, Architecture, Block, Budget, DesignProblem, SearchSpace
from hardware_models import DecoderParams, Flops, Params
from hardware_models.names import read_quantity
from merino_net import MerinoConfig, MerinoForCausalLM
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Exhaustive, Limits, Status, solve
from studies.proxy_correlation.proxies import DSS, NTK, analytic_proxies, network_proxies

SPACE = SearchSpace.uniform(2, (64, 128), (1, 2), (1, 2), embedding_width=64, vocabulary=96, positions=16)
TOKENS = np.random.default_rng(0).integers(96, size=(4, 16))


@pytest.mark.parametrize("shared", [True, False])
def test_decoder_parameters_are_those_of_the_network_between_embedding_and_final_norm(shared: bool) -> None:
    design = Architecture((Block(64, 96, 3), Block(128, 128, 2)), shared, 64, 96, 16)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design)).model
    real = sum(p.numel() for part in (model.blocks, model.joints) for p in part.parameters())
    assert DecoderParams()(design) == real
    unrolled = DecoderParams(unrolled=True)(design)
    assert unrolled == (real if not shared else pytest.approx(sum(_unrolled(design))))
    assert Params()(design) - real == (96 + 16 + 2) * 64 + 2 * 128  # tokens and positions, the norm of the last block


def _unrolled(design: Architecture) -> list[int]:
    apart = Architecture(design.blocks, False, design.embedding_width, design.vocabulary, design.positions)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(apart)).model
    return [p.numel() for part in (model.blocks, model.joints) for p in part.parameters()]


def test_analytic_proxies_are_taken_by_exact_solvers() -> None:
    for quantity in analytic_proxies(16).values():
        problem = DesignProblem(SPACE, quantity, (Budget(Flops(16), 4e6),))
        exact, truth = solve(problem, DynamicProgramming()), solve(problem, Exhaustive())
        assert exact.status is truth.status is Status.OPTIMAL
        assert exact.objective == truth.objective


@pytest.mark.slow
def test_black_boxes_are_remembered_and_spread_over_processes(tmp_path: Path) -> None:
    designs = list(SPACE)[:3]
    here = network_proxies(TOKENS)
    for name, box in network_proxies(TOKENS, tmp_path).items():
        # Each process takes seconds to load torch: one of the two proxies is enough.
        spread = box.values([*designs, designs[0]], jobs=2 if name == NTK else 1)
        assert spread.tolist() == [here[name](design) for design in (*designs, designs[0])]
    (kept,) = tmp_path.glob("ntk*.jsonl")
    assert len(kept.read_text().splitlines()) == 3
    again = network_proxies(TOKENS, tmp_path)[NTK]
    object.__setattr__(again, "function", None)  # what was called once is not called again
    assert [again(design) for design in designs] == [here[NTK](design) for design in designs]
    others = network_proxies(TOKENS[:, ::-1], tmp_path)[NTK]  # another minibatch has its own values
    assert others(designs[0]) != here[NTK](designs[0])


def test_heuristics_search_by_the_names_of_the_command_line() -> None:
    dss = read_quantity("studies.proxy_correlation.proxies:dss")
    problem = DesignProblem(SPACE, dss, (Budget(Flops(16), 4e6),))
    found = solve(problem, EvolutionaryAlgorithm(population=4, parents=2), Limits(evaluations=12, seed=1))
    assert found.status is Status.FEASIBLE
    assert found.objective == pytest.approx(network_proxies()[DSS](found.architecture))
    assert read_quantity("studies.proxy_correlation.proxies:inverse_ntk").name == "inverse NTK condition number, median of 3"


def test_lts_of_the_published_designs() -> None:
    values = {name: (DecoderParams()(design), DecoderParams(unrolled=True)(design)) for name, design in PUBLISHED.items()}
    assert all(once <= often for once, often in values.values())
    assert values["MeRino-52M"][0] == Params()(PUBLISHED["MeRino-52M"]) - 50257 * 768 - 2050 * 512 - 2 * 896
