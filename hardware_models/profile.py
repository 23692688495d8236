"""Measure this machine and write its device file: your own device in one command.

    python -m hardware_models.profile --name my-laptop
    python -m hardware_models.profile --name my-laptop --runtimes torch,onnx --precisions float32,int8 --phases prefill,decode
    python -m hardware_models.profile --name my-pi --runtimes llama.cpp
    python -m hardware_models.profile --name my-pi --runtimes onnxruntime-genai --space my_space.json

Times networks in every runtime, precision and phase asked for. In llama.cpp, onnxruntime-genai, openvino-genai and executorch they
are what is shipped: each network is exported, timed by the runtime's own client and deleted. They are designs of --space: of the
space edge-layers, where such a runtime is named, else of the paper's kind, single blocks and whole networks
(`profile_standalone.plan`).

Each is timed after a warm-up, in repeated passes of which the middle half counts; all networks once a round, and in another order
each round. A fixed piece of work timed before and after tells whether the machine ran at its usual pace; where not, the network is
measured again, and what was never measured at that pace is left out. Other work only ever slows a machine, so its usual pace is
that of the fast visits (`profile_standalone.usual_pace`). Before a network is timed in this process, its runtime tells what it
really ran (`hardware_models.kernels`).

Fits the prices of `hardware_models.latency` and writes NAME.json with the error that the fit has on networks and rounds it has not
seen. Every network is on disk as soon as it is measured (NAME.rows.jsonl): the same command goes on where it was stopped, and with
more --rounds, on another day, it adds to what is there. For a device that has nothing but an old Python and PyTorch, copy
hardware_models/profile_standalone.py to it.

Exit code 3 says that a table is doubtful or missing. One whose error is large (`hardware_models.fit.LARGE_ERROR`) is written, and
whatever uses it says so; one with fewer than 20 networks measured at the usual pace is not written.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation import Architecture, Block
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command, run_command
from formulation.command.words import text_table
from formulation.presets import edge_space
from formulation.problem_file import NAMED_SPACES, read_space
from formulation.records.files import output_folder
from formulation.records.reading import shown
from formulation.records.rows import Resume, Row, RowFile
from hardware_models.device import Device, check_device_name, write_device
from hardware_models.drawn import drawn_design, networks_of, setting_of
from hardware_models.latency import LatencyTable, MeasuredNetwork, fit_table
from hardware_models.workload import PHASES, Workload
from merino_net.shipping.runtimes import RUNTIMES

if TYPE_CHECKING:
    from hardware_models.artefacts import ArtefactEngine
    from hardware_models.engines import Engine

_PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("float32", "bfloat16", "float16", "int8"),
    "compiled": ("float32", "bfloat16", "float16"),
    "onnx": ("float32", "int8"),
    **{runtime.profiled: runtime.weights for runtime in RUNTIMES.values()},
}
"""Runtime -> precisions that it has."""

_SHIPPED_NAMES = tuple(runtime.profiled for runtime in RUNTIMES.values())
_SHORT = {"ort": "onnxruntime-genai", "openvino": "openvino-genai", "llamacpp": "llama.cpp"} | {
    name: runtime.profiled for name, runtime in RUNTIMES.items() if name != runtime.profiled
}
"""Other names of runtimes -> what they are called here."""

_SMALL = ("q8_0", "q4_0", "int8", "int4")
"""Weights in 8 and in 4 bits."""

_LEAST = 20
"""Networks: fewer than twice the folds of a cross-validation say little about its error."""


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the device: lower-case letters, digits, dots, hyphens")
    parser.add_argument(
        "--runtimes", default="torch,onnx", metavar="NAMES", help=f"of {', '.join(_PRECISIONS)} (default torch,onnx)"
    )
    parser.add_argument(
        "--precisions",
        metavar="NAMES",
        help=f"of {', '.join(_all_precisions())} (default float32; of artefacts, weights in 8 and 4 bits)",
    )
    parser.add_argument("--phases", metavar="NAMES", help="prefill, decode or both (default prefill; of artefacts, both)")
    parser.add_argument("--space", metavar="NAME|FILE", help=f"networks to measure are designs of it: {NAMED_SPACES}")
    parser.add_argument("--seq-len", type=int, default=128, metavar="T", help="tokens of a query, or in the cache (default 128)")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="sequences (queries) at a time (default 1)")
    parser.add_argument(
        "--logits", default="last", metavar="WHICH", help="last or all: which tokens of a prefill the head sees (default last)"
    )
    parser.add_argument("--networks", type=int, default=60, metavar="N", help=f"to measure, at least {_LEAST} (default 60)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times to measure all of them (default 3)")
    parser.add_argument(
        "--seconds", type=float, default=0.3, metavar="S", help="to time each network for in a round, in seconds (default 0.3)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="of the runtimes (default: one a processor)"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda (default cpu)")
    parser.add_argument("--description", default="", metavar="TEXT", help="of the device, in one sentence, for its file")
    parser.add_argument(
        "--source",
        default="measured by python -m hardware_models.profile",
        metavar="TEXT",
        help="who measured it, for its file (default: this command)",
    )
    parser.add_argument("--output", default=".", metavar="DIR", help="folder of the two files (default: this one)")
    return parser


def _all_precisions() -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in _PRECISIONS.values() for name in names))


@dataclass(frozen=True)
class Campaign:
    """What is to be measured, and how long: a command line, checked.

    Attributes:
        runtimes, precisions, phases: a table of each combination that there is; without precisions or phases, of those that are
            usual for the runtime.
        seq_len: tokens of a query, or in the cache.
        batch: sequences at a time.
        logits: which tokens of a prefill the head sees, "last" or "all".
        threads, device: of the runtimes.
        networks: how many to measure.
        rounds: how often to measure all of them.
        seconds: to time each network for in a round.
        space: whose designs are measured, by name or file; None: the space edge-layers where artefacts are timed, else networks of
            the paper's kind.

    Raises:
        ValueError: a name that is unknown or a number out of range, with its flag; a runtime that is not installed.
    """

    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    phases: tuple[str, ...]
    seq_len: int
    batch: int
    logits: str
    threads: int
    device: str
    networks: int
    rounds: int
    seconds: float
    space: str | None = None

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Campaign:
        """What the flags of the command line ask for."""
        names: dict[str, Any] = {
            flag: tuple(dict.fromkeys((flags[flag] or "").split(","))) for flag in ("runtimes", "precisions", "phases")
        }
        names |= {flag: () for flag in ("precisions", "phases") if flags[flag] is None}
        others = ("seq_len", "batch", "logits", "threads", "device", "networks", "rounds", "seconds", "space")
        return cls(**names, **{flag: flags[flag] for flag in others})

    def __post_init__(self) -> None:
        for flag, known in (("runtimes", tuple(_PRECISIONS)), ("precisions", _all_precisions()), ("phases", PHASES)):
            for name in getattr(self, flag):
                if name not in known:
                    near = _SHORT.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), "")
                    hint = f"; did you mean {near}?" if near else ""
                    raise ValueError(f"--{flag} names {shown(name)}{hint} (expected some of {', '.join(known)}, with commas)")
        for flag, least in (("networks", _LEAST), ("rounds", 1), ("threads", 1), ("seq_len", 1), ("batch", 1)):
            if getattr(self, flag) < least:
                raise ValueError(f"--{flag.replace('_', '-')} is {getattr(self, flag)}; expected at least {least}")
        if not 0 < self.seconds < 3600:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number of seconds, such as 0.3")
        needed = ("torch", "transformers", *(("onnx", "onnxruntime") if "onnx" in self.runtimes else ()))
        if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
            raise ValueError(f"{missing[0]} is not installed; run pip install -e '.[net,export]', or name other --runtimes")
        if not self.tables:
            raise ValueError(f"{','.join(self.runtimes)} has no precision {','.join(self.precisions)}; choose another of each")

    @property
    def tables(self) -> tuple[tuple[str, str, str], ...]:
        """(runtime, precision, phase) of each."""
        return tuple(
            (runtime, precision, phase)
            for runtime in self.runtimes
            for precision in self.precisions or _usual_precisions(runtime)
            for phase in self.phases or (PHASES if runtime in _SHIPPED_NAMES else PHASES[:1])
            if precision in _PRECISIONS[runtime]
        )

    def designs(self) -> list[Architecture]:
        """The networks to measure; ValueError for a space that has too few, or none of one surrounding."""
        shipped = [name for name in self.runtimes if name in _SHIPPED_NAMES]
        if self.space is not None:
            return networks_of(read_space(self.space), self.networks)
        if shipped:
            return networks_of(edge_space((True,) if "llama.cpp" in shipped else (False, True)), self.networks)
        return networks_to_measure(self.networks)

    @property
    def conditions(self) -> dict[str, Any]:
        """What all measurements of one file have in common."""
        return {key: getattr(self, key) for key in ("seq_len", "batch", "logits", "threads", "device")}

    def engines(self) -> list[Engine | ArtefactEngine]:
        """One engine for each table; ImportError where a package of its runtime is missing. Loads PyTorch."""
        from hardware_models.engines import makers

        make = makers()
        return [
            make[runtime, precision](
                runtime, precision, Workload(phase, self.seq_len, self.batch, self.logits), self.device, self.threads
            )
            for runtime, precision, phase in self.tables
        ]


def _usual_precisions(runtime: str) -> tuple[str, ...]:
    """What is measured of a runtime unless asked otherwise: float32, and of artefacts, weights in 8 and 4 bits."""
    return tuple(name for name in _PRECISIONS[runtime] if name in (_SMALL if runtime in _SHIPPED_NAMES else ("float32",)))


def networks_to_measure(count: int) -> list[Architecture]:
    """The networks of `profile_standalone.plan` in the surroundings that designs have by default."""
    from hardware_models.profile_standalone import plan

    return [Architecture(tuple(Block(*block) for block in blocks), shared) for blocks, shared in plan(count)]


def measure_rounds(
    engines: Sequence[Engine | ArtefactEngine], designs: Sequence[Architecture], rounds: int, seconds: float, file: RowFile
) -> None:
    """Measure every design in every engine, round by round, and append a row for each; those that exist are not measured again.

    Unless the machine was not steady: then a network is measured again, a few times at most, once all others are done.
    """
    from merino_net.training.allocator import keep_memory

    keep_memory()
    setting = setting_of(designs)
    for engine in engines:
        head = next((row for row in file.rows if row["table"] == engine.name and "how" in row), None)
        if head is None:
            file.append({"table": engine.name, "workload": asdict(engine.workload), "setting": setting, "how": engine.how})
        elif head["setting"] != setting:
            raise ValueError(
                f"the rows of {engine.name} are of networks in {head['setting']}, these are in {setting}; choose the same "
                "--space, or another --output or --name"
            )
        elif head["how"].get("linear_maps") != engine.how["linear_maps"]:
            raise ValueError(
                f"the rows of {engine.name} were measured without a look at what really ran; choose another --output or --name, or "
                "delete the .rows.jsonl to start over"
            )
    by_name = {engine.name: engine for engine in engines}
    jobs = {
        (engine.name, number, str(designs[k])): designs[k]
        for number in range(rounds)
        for k in np.random.default_rng(number).permutation(len(designs))
        for engine in engines
    }

    def measure(key: Key, design: Architecture) -> Row:
        table, number, network = key
        facts = by_name[table].measure(design, seconds)
        return {"table": table, "round": number, "network": network, **asdict(facts)}

    measure_steadily(jobs, file, _key, measure)


Key = tuple[Any, ...]


def _key(row: Row) -> Key | None:
    return (row["table"], row["round"], row["network"]) if "round" in row else None


def measure_steadily(
    jobs: Mapping[Key, Architecture],
    file: RowFile,
    key_of: Callable[[Row], Key | None],
    measure: Callable[[Key, Architecture], Row],
    usual_ms: float | None = None,
) -> None:
    """Append a row for each job that the file has none for, then for those that it has no steady row for, a few times at most.

    A row is steady where its `pace_ms` is within 4 % of the usual one: `usual_ms`, or where that is None the pace of the fast ones
    among the rows whose key begins alike (those of one table).
    """
    from hardware_models.profile_standalone import ATTEMPTS, is_steady

    wanted: Sequence[Key] = list(jobs)
    for attempt in range(ATTEMPTS):
        with Resume(file, wanted, key_of=key_of, unit="network", again=attempt > 0) as resume:
            for key in wanted:
                resume.note(" ".join(map(str, key)))
                resume.row(key, partial(measure, key, jobs[key]))
        best = steadiest(file.rows, key_of, usual_ms)
        usual = usual_paces(file.rows, key_of) if usual_ms is None else dict.fromkeys((key[0] for key in jobs), usual_ms)
        tried = Counter(key_of(row) for row in file.rows)
        wanted = [key for key in jobs if not is_steady(best[key]["pace_ms"], usual[key[0]]) and tried[key] < ATTEMPTS]
        if not wanted:
            return


def usual_paces(rows: Sequence[Row], key_of: Callable[[Row], Key | None]) -> dict[Any, float]:
    """`profile_standalone.usual_pace` [ms] of the rows whose key begins alike, by that beginning."""
    from hardware_models.profile_standalone import usual_pace

    paces: dict[Any, list[float]] = {}
    for row in rows:
        if (key := key_of(row)) is not None:
            paces.setdefault(key[0], []).append(row["pace_ms"])
    return {group: usual_pace(own) for group, own in paces.items()}


def steadiest(rows: Sequence[Row], key_of: Callable[[Row], Key | None], usual_ms: float | None = None) -> dict[Key, Row]:
    """For each job the row whose pace is nearest to the usual one."""
    usual = usual_paces(rows, key_of)
    best: dict[Key, Row] = {}
    for row in rows:
        key = key_of(row)
        if key is None:
            continue
        aim = usual[key[0]] if usual_ms is None else usual_ms
        if key not in best or abs(row["pace_ms"] - aim) < abs(best[key]["pace_ms"] - aim):
            best[key] = row
    return best


def visits_by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of one table that hold a visit, by network."""
    visits: dict[str, list[Row]] = {}
    for row in rows:
        if "round" in row:
            visits.setdefault(row["network"], []).append(row)
    return visits


def measured_networks(
    visits: Mapping[str, Sequence[Row]], usual_ms: float, setting: Mapping[str, Any]
) -> tuple[MeasuredNetwork, ...]:
    """What the visits say of each network: of each of its rounds the cleanest, and nothing of a network that has no clean one.

    Args:
        visits: by the text of the network.
        usual_ms: pace of the machine.
        setting: what stands around the blocks of all networks, by name.
    """
    from hardware_models.profile_standalone import clean_rounds

    networks = []
    for text, seen in visits.items():
        if own := clean_rounds(seen, usual_ms):
            freedom = max(sum(row["passes"] - 1 for row in own), 1)
            variance = sum(row["std_ms"] ** 2 * (row["passes"] - 1) for row in own) / freedom
            times = tuple(row["trimmed_ms"] for row in own)
            networks.append(
                MeasuredNetwork(drawn_design(text, setting), times, math.sqrt(variance), sum(row["passes"] for row in own))
            )
    return tuple(networks)


def fitted_device(rows: Sequence[Row], name: str, description: str, source: str) -> Device:
    """The device that rows of `measure_rounds` describe: a table, fitted, for each engine with enough clean networks.

    Raises:
        ValueError: if no engine has: the machine had other work all the time.
    """
    from hardware_models.profile_standalone import left_out, memory_bytes

    tables = []
    usual = usual_paces(rows, _key)
    for head in (row for row in rows if "how" in row):
        visits = visits_by_network([row for row in rows if row["table"] == head["table"]])
        pace = usual.get(head["table"], math.nan)
        networks = measured_networks(visits, pace, head["setting"])
        if len(networks) >= _LEAST:
            how = head["how"] | {"pace_ms": round(pace, 4), "not_steady": left_out(list(visits.values()), pace)}
            if largest := max(row["artefact_bytes"] for own in visits.values() for row in own):
                how["largest_artefact_bytes"] = largest
            tables.append(fit_table(name, head["table"], Workload(**head["workload"]), networks, how=how))
    if not tables:
        raise ValueError(
            f"fewer than {_LEAST} networks were measured at the usual pace of this machine, which had other work to do; "
            "run the same command with more --rounds when it has none"
        )
    return Device(name, tuple(tables), description, source, memory_bytes())


def error_text(tables: Sequence[LatencyTable]) -> str:
    """Out-of-sample error of tables, for people; what is doubtful is marked."""

    def cells(table: LatencyTable) -> tuple[str, ...]:
        error = table.error
        if error is None:
            return (table.name, "", "", "", "", "", "")
        return (
            table.name,
            str(len(table.rows) or error.networks),
            f"{100 * error.mape:.1f} %" + (" (doubtful)" if table.doubt else ""),
            f"{100 * error.within_10:.0f} %",
            f"{error.spearman:.3f}",
            f"{error.rmse:.3g} ms",
            f"{table.margin(0.95):.3f}",
        )

    header = ("table", "networks", "mean error", "within 10 %", "Spearman", "RMSE", "95 % margin")
    return text_table(header, [cells(table) for table in tables], {0})


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit and write; returns the exit code."""
    options = command_line().parse_args(arguments)
    check_device_name(options.name)
    campaign = Campaign.of(vars(options))
    designs = campaign.designs()
    engines = campaign.engines()
    folder = output_folder(options.output)
    path = folder / f"{options.name}.rows.jsonl"
    file = RowFile(path)
    file.begin({"table": "", "conditions": campaign.conditions})
    measure_rounds(engines, designs, campaign.rounds, campaign.seconds, file)
    device = fitted_device(file.rows, options.name, options.description, options.source)
    write_device(device, folder / f"{options.name}.json")
    print(f"{error_text(device.tables)}\n\nOf networks and rounds that the fit had not seen; the margin is measured / predicted.")
    print(f"Written to {folder}: {options.name}.json; use it as --budget latency@{folder / options.name}.json=50")
    doubts = [table.doubt for table in device.tables if table.doubt]
    missing = {engine.name for engine in engines} - {table.name for table in device.tables}
    doubts += [
        f"{name} has fewer than {_LEAST} networks measured at the usual pace, so it is not in the file" for name in sorted(missing)
    ]
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)
    return ExitCode.BROKEN_PROMISE if doubts else ExitCode.DONE


if __name__ == "__main__":
    run_command(main)
