"""Measure this machine and write its device file: your own device in one command.

    python -m hardware_models.profile --name my-laptop
    python -m hardware_models.profile --name my-laptop --runtimes torch,onnx --precisions float32,int8 --phases prefill,decode

Times the networks of `profile_standalone.plan`, single blocks and whole networks, in every runtime, precision and phase asked for:
warm-up, repeated passes of which the middle half counts, all networks once a round and in another order each round. Fits the
prices of `hardware_models.latency` to them and writes NAME.json with the error that fit has on networks and rounds it has not
seen. Every network is on disk as soon as it is measured (NAME.rows.jsonl): the same command goes on where it was stopped, and
with more --rounds, on another day, it adds to what is there. For a device that has nothing but an old Python and PyTorch, copy
hardware_models/profile_standalone.py to it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from formulation import Architecture, Block
from formulation.report import output_folder, run_command, text_table
from formulation.rows import Row, RowFile
from hardware_models.device import Device, check_device_name, write_device
from hardware_models.latency import LatencyTable, fit_table
from hardware_models.measurement import MeasuredNetwork, read_blocks
from hardware_models.workload import PHASES, Workload

if TYPE_CHECKING:
    from hardware_models.engines import Engine

_RUNTIMES = ("torch", "compiled", "onnx")
_PRECISIONS = ("float32", "bfloat16", "float16", "int8")
_UNSHARED = " unshared"
_LEAST = 20
"""Networks: fewer than twice the folds of a cross-validation say little about its error."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="python -m hardware_models.profile", description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True, help="of the device: lower-case letters, digits, dots, hyphens")
    parser.add_argument("--runtimes", default="torch,onnx", metavar="NAMES", help=f"of {', '.join(_RUNTIMES)} (default torch,onnx)")
    parser.add_argument("--precisions", default="float32", metavar="NAMES", help=f"of {', '.join(_PRECISIONS)} (default float32)")
    parser.add_argument("--phases", default="prefill", metavar="NAMES", help="prefill, decode or both (default prefill)")
    parser.add_argument("--seq-len", type=int, default=128, metavar="T", help="tokens of a query, or in the cache (default 128)")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="sequences at a time (default 1)")
    parser.add_argument("--logits", default="last", help="last or all: which tokens of a prefill the head sees (default last)")
    parser.add_argument("--networks", type=int, default=60, metavar="N", help=f"to measure, at least {_LEAST} (default 60)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times to measure all of them (default 3)")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="to time each network for in a round (default 0.3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one a processor")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--description", default="", help="of the device, in one sentence, for its file")
    parser.add_argument("--source", default="measured by python -m hardware_models.profile", help="who measured it, for its file")
    parser.add_argument("--output", default=".", metavar="DIR", help="folder of the two files (default: this one)")
    return parser.parse_args(arguments)


def engines_of(options: argparse.Namespace) -> list[Engine]:
    """One engine for each table asked for; ValueError naming the flag that is wrong. Loads PyTorch."""
    for flag, known in (("runtimes", _RUNTIMES), ("precisions", _PRECISIONS), ("phases", PHASES)):
        names = getattr(options, flag).split(",")
        if not set(names) <= set(known):
            raise ValueError(f"--{flag} is {getattr(options, flag)!r}; expected some of {', '.join(known)}, with commas")
    for flag, least in (("networks", _LEAST), ("rounds", 1), ("threads", 1), ("seq_len", 1), ("batch", 1)):
        if getattr(options, flag) < least:
            raise ValueError(f"--{flag.replace('_', '-')} is {getattr(options, flag)}; expected at least {least}")
    if not 0 < options.seconds < 3600:
        raise ValueError(f"--seconds is {options.seconds}; expected a positive number of seconds, such as 0.3")
    from hardware_models.engines import RUNTIMES, Engine

    wanted = [
        (runtime, precision, phase)
        for runtime in options.runtimes.split(",")
        for precision in options.precisions.split(",")
        for phase in options.phases.split(",")
        if precision in RUNTIMES[runtime]
    ]
    if not wanted:
        raise ValueError(f"{options.runtimes} has no precision {options.precisions}; choose another of each")
    return [
        Engine(runtime, precision, Workload(phase, options.seq_len, options.batch, options.logits), options.device, options.threads)
        for runtime, precision, phase in wanted
    ]


def networks_to_measure(count: int) -> list[Architecture]:
    """The networks of `profile_standalone.plan` in the surroundings that designs have unless told."""
    from hardware_models.profile_standalone import plan

    return [Architecture(tuple(Block(*block) for block in blocks), shared) for blocks, shared in plan(count)]


def measure_rounds(engines: Sequence[Engine], designs: Sequence[Architecture], rounds: int, seconds: float, file: RowFile) -> None:
    """Measure every design in every engine, round by round, and append a row for each; those that exist are not measured again."""
    from tqdm import tqdm

    from hardware_models.profile_standalone import deviation, time_pass, trimmed_mean
    from merino_net.allocator import keep_memory

    keep_memory()
    done = {(row["table"], row["round"], row["network"]) for row in file.rows if "round" in row}
    for engine in engines:
        if not any(row["table"] == engine.name for row in file.rows):
            file.append({"table": engine.name, "workload": asdict(engine.workload), "how": engine.how})
    jobs = [
        (engine, number, designs[k])
        for number in range(rounds)
        for engine in engines
        for k in np.random.default_rng(number).permutation(len(designs))
        if (engine.name, number, str(designs[k])) not in done
    ]
    with tqdm(jobs, unit="network", disable=not sys.stderr.isatty()) as bar:
        for engine, number, design in bar:
            bar.set_postfix_str(f"{engine.name} round {number + 1}, {design}")
            timed = [1000 * value for value in time_pass(engine.prepare(design), seconds)]
            row = {"table": engine.name, "round": number, "network": str(design)}
            file.append(row | {"trimmed_ms": trimmed_mean(timed), "std_ms": deviation(timed), "passes": len(timed)})


def measured_networks(rows: Sequence[Row]) -> tuple[MeasuredNetwork, ...]:
    """What the rows of one table say of each network, over the rounds that all of them have."""
    seen: dict[str, dict[int, Row]] = {}
    for row in rows:
        if "round" in row:
            seen.setdefault(row["network"], {})[row["round"]] = row
    if not seen:
        return ()
    rounds = sorted(set.intersection(*(set(own) for own in seen.values())))
    networks = []
    for text, by_round in seen.items() if rounds else ():
        own = [by_round[number] for number in rounds]
        freedom = max(sum(row["passes"] - 1 for row in own), 1)
        variance = sum(row["std_ms"] ** 2 * (row["passes"] - 1) for row in own) / freedom
        design = Architecture(read_blocks(text.removesuffix(_UNSHARED)), not text.endswith(_UNSHARED))
        times = tuple(row["trimmed_ms"] for row in own)
        networks.append(MeasuredNetwork(design, times, math.sqrt(variance), sum(row["passes"] for row in own)))
    return tuple(networks)


def device_of(rows: Sequence[Row], name: str, description: str, source: str) -> Device:
    """The device that rows of `measure_rounds` describe: a table, fitted, for each engine with enough networks."""
    from hardware_models.profile_standalone import memory_bytes

    tables = []
    for head in (row for row in rows if "how" in row):
        networks = measured_networks([row for row in rows if row["table"] == head["table"]])
        if len(networks) >= _LEAST:
            tables.append(fit_table(name, head["table"], Workload(**head["workload"]), networks, how=head["how"]))
    return Device(name, tuple(tables), description, source, memory_bytes())


def error_text(tables: Sequence[LatencyTable]) -> str:
    """Out-of-sample error of tables, for people."""

    def cells(table: LatencyTable) -> tuple[str, ...]:
        error = table.error
        if error is None:
            return (table.name, "", "", "", "", "", "")
        return (
            table.name,
            str(len(table.rows) or error.networks),
            f"{100 * error.mape:.1f} %",
            f"{100 * error.within_10:.0f} %",
            f"{error.spearman:.3f}",
            f"{error.rmse:.3g} ms",
            f"{table.margin(0.95):.3f}",
        )

    header = ("table", "networks", "mean error", "within 10 %", "Spearman", "RMSE", "95 % margin")
    return text_table(header, [cells(table) for table in tables], {0})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit and write; returns the exit code."""
    options = parse_arguments(arguments)
    check_device_name(options.name)
    engines = engines_of(options)
    folder = output_folder(options.output)
    path = folder / f"{options.name}.rows.jsonl"
    file = RowFile(path)
    conditions = {key: getattr(options, key) for key in ("seq_len", "batch", "logits", "threads", "device")}
    if not file.rows:
        file.append({"table": "", "conditions": conditions})
    elif file.rows[0].get("conditions") != conditions:
        raise ValueError(
            f"{path} was measured with {file.rows[0].get('conditions')}, now it is {conditions}; "
            "choose another --output or --name, or delete that file to begin anew"
        )
    designs = networks_to_measure(options.networks)
    try:
        measure_rounds(engines, designs, options.rounds, options.seconds, file)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is measured is kept in {path}, and the same command goes on", file=sys.stderr)
        return 130
    device = device_of(file.rows, options.name, options.description, options.source)
    write_device(device, folder / f"{options.name}.json")
    print(f"{error_text(device.tables)}\n\nOf networks and rounds that the fit had not seen; the margin is measured / predicted.")
    print(f"Written to {folder}: {options.name}.json; use it as --budget latency@{folder / options.name}.json=50")
    return 0


if __name__ == "__main__":
    run_command(main)
