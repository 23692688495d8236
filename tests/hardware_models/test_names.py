"""Quantities by name: options in brackets, datasheets by path, and the way back to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from formulation import Budget, EffectiveEntropy
from hardware_models import (
    Flops,
    GenerationLatency,
    Latency,
    Memory,
    MemoryShare,
    PrefillLatency,
    Sourced,
    quantity_to_dict,
    read_datasheet,
    read_device,
    write_datasheet,
    write_device,
)
from hardware_models.names import quantity_from_dict, read_quantity, split_options
from studies.budget_flags import read_budgets

NANO = read_datasheet("jetson-nano")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("flops", Flops()),
        ("flops(seq_len=128, head=true)", Flops(128, True)),
        ("flops()", Flops()),
        ("entropy(alpha=[0.5,0.5],rho=0.1)", EffectiveEntropy(alpha=(0.5, 0.5), rho=0.1)),
        ("prefill-latency@jetson-nano", PrefillLatency(NANO)),
        (
            "prefill-latency@jetson-nano(seq_len=512,precision=float16,logits=all,batch=2)",
            PrefillLatency(NANO, 512, "float16", 2, "all"),
        ),
        (
            "generation-latency@jetson-nano(prompt=64,new_tokens=32,software=rated)",
            GenerationLatency(NANO, 64, 32, software="rated"),
        ),
        ("memory-share@raspberry-pi-4(bits=8)", MemoryShare(Memory(bits=8), 4 * 2**30, "raspberry-pi-4")),
        ("latency@amd-epyc-2cpu(extrapolate=true)", Latency(read_device("amd-epyc-2cpu").table(), extrapolate=True)),
        (
            "latency@amd-epyc-2cpu:torch-float32-decode(confidence=0.95)",
            Latency(read_device("amd-epyc-2cpu").table("torch-float32-decode"), 0.95),
        ),
    ],
)
def test_options_stand_in_brackets_and_in_files(text: str, meant: object) -> None:
    quantity = read_quantity(text)
    assert quantity == meant
    assert quantity_from_dict(quantity_to_dict(quantity)) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flops(seq=128)", "budget has the unknown key 'seq'; did you mean 'seq_len'"),
        ("flops(seq_len=0)", "budget: seq_len is 0"),
        ("flops(seq_len=many)", "budget.seq_len is 'many'; expected a whole number"),
        ("flops(128)", r"the option '128' of 'flops\(128\)' is not NAME=VALUE"),
        ("flops(seq_len=1,seq_len=2)", "the option 'seq_len=2' of .* given once"),
        ("flops(quantity=params)", "names its quantity in brackets; expected it before them"),
        ("prefill-latency@jetson-nano(device=titan-xp)", "names its device in brackets; expected it before them"),
        ("prefill-latency@jetson-nano(precision=)", "the option 'precision=' of .* is not NAME=VALUE"),
        ("flop(seq_len=1)", "unknown budget 'flop'; did you mean 'flops'"),
        ("prefill-latency(seq_len=1)", "prefill-latency needs a device; write prefill-latency@raspberry-pi-4"),
        ("prefill-latency@abacus", "unknown datasheet 'abacus'"),
        ("prefill-latency@pixel-watch-5", "pixel-watch-5 has no datasheet, but measured tables; ask for latency@pixel-watch-5"),
        ("latency@raspberry-pi-5", "it has a datasheet: ask for prefill-latency@raspberry-pi-5, decode-"),
        ("prefill-latency@jetson-nano(table=x)", "unknown key 'table'"),
        ("prefill-latency@jetson-nano(precision=int8)", "no peak_flops in 'int8'"),
        ("latency@amd-epyc-2cpu(seq_len=5)", "unknown key 'seq_len'"),
        ("memory-share@abacus", "unknown device 'abacus'"),
        ("memory-share@xeon-platinum-8180", "xeon-platinum-8180 states no ram_bytes"),
        ("tests.hardware_models.test_names:NANO(a=1)", "takes no options"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_quantity(text, "budget")
    assert "\n" not in str(caught.value)


def test_names_without_brackets_are_left_alone() -> None:
    assert split_options("latency@boards (old)/mine.json:decode") == ("latency@boards (old)/mine.json:decode", {})
    assert split_options("latency@boards (old)/mine.json(table=decode)") == ("latency@boards (old)/mine.json", {"table": "decode"})


def test_budgets_with_options() -> None:
    texts = ["prefill-latency@jetson-nano(seq_len=512,precision=float16)<=50", "flops(seq_len=128)=1e9", "flops>=1e6"]
    ((latency, flops, least),) = read_budgets(texts)
    assert latency == Budget(PrefillLatency(NANO, 512, "float16"), 50.0)
    assert flops == Budget(Flops(128), 1e9)
    assert least == Budget(Flops(), at_least=1e6)
    with pytest.raises(ValueError, match="more than one budget"):
        read_budgets(["flops=60e9 params=5e7"])
    with pytest.raises(ValueError, match="is not NAME<=NUMBER or NAME>=NUMBER"):
        read_budgets(["flops(seq_len=128)"])


def test_a_datasheet_of_the_user_s_own(tmp_path: Path) -> None:
    path = str(tmp_path / "my-board.json")
    sheet = replace(NANO, name="my-board", ram_bytes=Sourced(1e9, "made up"))
    write_datasheet(sheet, Path(path))
    quantity = read_quantity(f"prefill-latency@{path}(seq_len=64)")
    assert quantity == PrefillLatency(sheet, 64)
    written = quantity_to_dict(quantity)
    assert written["device"] == path
    assert quantity_from_dict(written) == quantity
    assert read_quantity(f"memory-share@{path}") == MemoryShare(Memory(), 1e9, path)
    device = str(tmp_path / "device.json")
    write_device(replace(read_device("amd-epyc-2cpu"), name="my-board", ram_bytes=2e9), Path(device))
    assert read_quantity(f"memory-share@{device}") == MemoryShare(Memory(), 2e9, device)
    with pytest.raises(ValueError, match='has the format \'merino device\'; expected an object with "format": "merino datasheet"'):
        read_quantity(f"prefill-latency@{device}")


def test_a_datasheet_that_no_file_holds_is_not_named() -> None:
    changed = PrefillLatency(replace(NANO, bandwidth=Sourced(1.0, "made up")))
    made = PrefillLatency(replace(NANO, origin=""))
    for quantity in (changed, made):
        with pytest.raises(ValueError, match="the datasheet of jetson-nano is in no file"):
            quantity_to_dict(quantity)
