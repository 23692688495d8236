"""What the page of results quotes of kept results, number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formulation import PRESETS, Architecture, EffectiveEntropy
from formulation.deployability import deployability
from formulation.problem_file import SPACES
from hardware_models import CacheMemory, Flops, Params

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    """A file of kept results."""
    record: dict[str, Any] = json.loads((ROOT / "studies" / "results" / name).read_text(encoding="utf-8"))
    return record


LATENCIES = kept("latency_data/results.json")


def percents(errors: list[float]) -> str:
    """Cells of a table of errors."""
    return " | ".join(f"{100 * error:.1f} %" for error in errors)


LAYERS = {"own": None, "llama_cpp": "llama.cpp", "hf_llama": "hf-llama", "params": None}
"""Folders of designs around SmolLM2-135M, each with the rules of deployability that it was kept to."""


@pytest.mark.parametrize(("name", "rules"), LAYERS.items(), ids=LAYERS)
def test_designs_of_layers_are_those_of_the_page(name: str, rules: str | None) -> None:
    record = kept(f"layers/{name}/design.json")
    solution, design, published = record["solution"], Architecture.from_dict(record["architecture"]), PRESETS["smollm2-135m"]
    entropy, costs = EffectiveEntropy(), (Params(), Flops(), CacheMemory(1024, bits=16))
    assert solution["status"] == "optimal"
    assert design in SPACES["smollm2-135m-layers"]()
    assert entropy(design) == pytest.approx(solution["objective"], rel=1e-12)
    limits = [cost(published) for cost in (costs[:1] if name == "params" else costs)]
    assert [usage["upper"] for usage in solution["usage"]] == limits
    assert [cost(design) <= limit for cost, limit in zip(costs, limits, strict=False)] == [True] * len(limits)
    if rules is None:
        assert record["deployability"] is None
    else:
        assert record["deployability"]["rules"] == rules
        assert deployability(rules).faults(design) == ()
    if rules == "llama.cpp":
        near = record["near"]
        assert near["exact"]
        assert f"{near['number'] / 1e19:.0f}·10¹⁹ that llama.cpp can run" in PAGE
        assert f"{near['distinct']:,} if the order of layers is" in PAGE
    gain = 100 * (entropy(design) / entropy(published) - 1)
    value = f"{entropy(design):,.2f}" + (f" (+{gain:.2f} %)" if gain > 1e-9 else "")
    assert f"| {value} | {Params()(design) / 1e6:.1f} M | {solution['seconds']:.0f} s |" in PAGE
    assert f"| {entropy(published):,.2f} | {Params()(published) / 1e6:.1f} M | |" in PAGE


@pytest.mark.parametrize(("name", "title"), [("flops", "FLOPs"), ("params", "parameters"), ("both", "both")])
def test_fronts(name: str, title: str) -> None:
    front = kept(f"pareto/{name}/front.json")
    seconds = front["certificate"]["seconds"]
    assert f"| {title} | {front['points']} | {seconds:.{0 if seconds > 10 else 1}f} s | [pareto/{name}]" in PAGE


def test_the_nine_latencies_of_the_paper() -> None:
    networks, errors = LATENCIES["published"]["networks"], LATENCIES["published"]["errors"]
    for title, key in [("published, ms", "published_ms"), ("`jetson-nano`", "fitted_ms"), ("left one out", "leave_one_out_ms")]:
        assert f"| {title} | {' | '.join(f'{network[key]:.0f}' for network in networks)} |" in PAGE
    words = " ".join(PAGE.split())
    shown = {name: f"{100 * error['mape']:.1f} %" for name, error in errors.items()}
    assert f"the nine figures to {shown['fitted']}, and to {shown['leave_one_out']} with each network left out" in words
    assert f"FLOPs of the layers alone: {shown['flops_fitted']} and {shown['flops_leave_one_out']}" in words
    assert f"with the head where it is timed, {shown['flops_with_head_leave_one_out']} left out" in words


def test_the_latencies_of_the_m1() -> None:
    for title, key in [
        ("`apple-m1`", "leave_one_out"),
        ("FLOPs of the layers alone", "flops_leave_one_out"),
        ("FLOPs, with the head where it is timed", "flops_with_head_leave_one_out"),
    ]:
        errors = [length["errors"][key]["mape"] for length in LATENCIES["apple_m1"]["lengths"]]
        assert f"| {title} | {percents(errors)} |" in PAGE


def test_the_errors_of_the_watch() -> None:
    found = {(error["table"], error["model"]): error["mape"] for error in LATENCIES["watch"]["errors"]}
    models = ("additive", "additive, no condition", "FLOPs", "trees (ceiling)", "trees on columns (ceiling)")
    titles = {"first-token": "time to the first token", "token": "time for each decoded token", "energy": "energy by decoded token"}
    for table, title in titles.items():
        assert f"| {title} | {percents([found[table, model] for model in models])} |" in PAGE


def test_the_designs_for_the_watch() -> None:
    rows = LATENCIES["watch"]["designs"]["rows"]
    assert len(rows) == 5
    for row in rows:
        knowing, blind, meeting = (row[name] for name in ("knowing", "blind", "meeting"))
        gain = 100 * (knowing["entropy"] / meeting["entropy"] - 1)
        assert (
            f"| {row['limit_ms']:.0f} ms | {knowing['entropy']:,.0f} | {blind['entropy']:,.0f} | {blind['predicted_ms']:.1f} ms"
            f" | {meeting['entropy']:,.0f} (+{gain:.1f} % by knowing) |"
        ) in PAGE


def test_one_design_for_all_devices() -> None:
    devices = kept("hardware/hardware.json")["common"]["devices"]
    lost: dict[bool, list[float]] = {True: [], False: []}
    for device in devices:
        lost[bool(device["extrapolated"])].append(100 * device["entropy_lost"])
    spans = {beyond: f"{min(losses):.0f} to {max(losses):.0f} %" for beyond, losses in lost.items()}
    words = " ".join(PAGE.split())
    assert len(devices) == 7
    assert f"loses {spans[False]} of the entropy of the optima by tables that do not extrapolate, and {spans[True]}" in words


def test_the_optima_of_cost_models() -> None:
    optima = {optimum["cost"]: optimum for optimum in kept("hardware/hardware.json")["optima"]}
    words = " ".join(PAGE.split())

    def asked_for(*starts: str) -> str:
        of = [optimum for cost, optimum in optima.items() if cost.startswith(starts)]
        widths = [block["width"] for optimum in of for block in optimum["architecture"]["blocks"]]
        layers = [optimum["layers"] for optimum in of]
        few, many, narrow, wide = min(layers), max(layers), min(widths), max(widths)
        depth = f"{few}" if few == many else f"{few} to {many}"
        return f"{depth} layers of width " + (f"{narrow}" if narrow == wide else f"{narrow:,} to {wide:,}")

    assert f"Parameters or memory alone ask for {asked_for('params', 'memory')}" in words
    assert f"FLOPs and this CPU ask for {asked_for('flops', 'latency@amd')}" in words
    assert f"The table of the paper's Jetson asks for {asked_for('latency@jetson')}" in words
    assert f"ask for {asked_for('latency@raspberry', 'latency@xeon', 'latency@titan')}" in words
