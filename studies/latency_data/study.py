"""Latencies of whole transformers that others measured, compared with a model that adds up over layers: HAT's, and the paper's
nine.

    python -m studies.latency_data FILE.csv [FILE.csv ...]
    python -m studies.latency_data FILE.csv [FILE.csv ...] --devices hardware_models/devices
    python -m studies.latency_data MINE.csv --device-name my-board --task mt --tokens 30 --steps 30 --beam 5 --vocabulary 8000
    python -m studies.latency_data --published

Three models are cross-validated on the same ten folds: the additive model, FLOPs alone, and boosted trees as the ceiling; with all
rows, and again without those that a stated rule (`measurement_faults`) flags. A file does not say what was measured: HAT's own are
recognised by their content, and flags describe any other. The files' format is in
`studies.latency_data.hat_file`, device files of it in `studies.latency_data.devices`, the paper's nine in
`studies.latency_data.published`, figures and tables in `studies.latency_data.figures`. Writes results.json, each part under its own
key, latency_data.png, latency_published.png, and with --devices the device files.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted
from formulation.published import PUBLISHED_MS
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import read_json
from hardware_models.device import Device, write_device
from hardware_models.fit import assign_folds, cross_validated, fit_error, nonnegative_fit
from studies.latency_data.devices import encoder_check, error_record, hat_device
from studies.latency_data.hat_file import (
    DESIGN_COLUMNS,
    FEWEST,
    FOLDS,
    GIVEN,
    SIDES,
    SLOW,
    UNSTEADY,
    Facts,
    LatencyData,
    asked_for,
    by_file_order,
    fit_additive,
    given_facts,
    head_flops,
    is_known,
    layer_flops,
    layer_work,
    measurement_faults,
    read_data,
)
from studies.latency_data.published import fit_published, published_device, published_record

_TREES = {
    f"trees, {leaves} leaves, {loss} error": {
        "learning_rate": rate,
        "max_iter": rounds,
        "max_leaf_nodes": leaves,
        "loss": f"{loss}_error",
    }
    for leaves, rounds, rate in ((4, 400, 0.03), (8, 200, 0.05))
    for loss in ("squared", "absolute")
}
"""Boosted trees on the logarithm of the latency. Deeper ones follow the noise of these data: they come out worse."""
ADDITIVE, CEILING = "additive", "trees (ceiling)"


def predictions(data: LatencyData, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, dict[str, np.ndarray]]:
    """Side -> model -> out-of-fold prediction of every row [ms], all on the same folds.

    Models: additive; FLOPs of the layers alone, with a constant, with the output head; boosted trees, which see every column.
    """
    groups = data.designs
    flops = dict(zip(SIDES, layer_flops(data), strict=False))
    flops["sum"] = flops["encoder"] + flops["decoder"]
    head = {"encoder": 0.0, "decoder": head_flops(data), "sum": head_flops(data)}
    columns = np.column_stack([data[name] for name in DESIGN_COLUMNS])
    fold = assign_folds(len(data), FOLDS, seed, groups)
    found: dict[str, dict[str, np.ndarray]] = {}
    for side in SIDES:
        latency = data.latency_ms(side)

        def out_of_fold(work: np.ndarray, fit: Any = nonnegative_fit, latency: np.ndarray = latency) -> np.ndarray:
            return cross_validated(work, latency, FOLDS, seed, groups, fit)

        if side == "sum":
            additive = found["encoder"][ADDITIVE] + found["decoder"][ADDITIVE]
        else:
            additive = out_of_fold(layer_work(data, side), fit_additive)
        models = {
            ADDITIVE: additive,
            "FLOPs": out_of_fold(flops[side][:, None]),
            "FLOPs + constant": out_of_fold(np.column_stack([np.ones(len(data)), flops[side]])),
            "FLOPs with head": out_of_fold((flops[side] + head[side])[:, None]),
        }
        for name, settings in _TREES.items():
            models[name] = _tree_predictions(columns, latency, fold, settings, seed)
            tick()
        found[side] = models
    return found


def _tree_predictions(columns: np.ndarray, latency_ms: np.ndarray, fold: np.ndarray, settings: Any, seed: int) -> np.ndarray:
    predicted = np.empty(len(latency_ms))
    for number in range(FOLDS):
        held = fold == number
        trees = _scikit_learn().HistGradientBoostingRegressor(**settings, early_stopping=False, random_state=seed)
        trees.fit(columns[~held], np.log(latency_ms[~held]))
        predicted[held] = np.exp(trees.predict(columns[held]))
    return predicted


def _scikit_learn() -> Any:
    try:
        return importlib.import_module("sklearn.ensemble")
    except ImportError:
        raise ImportError("the boosted trees need scikit-learn; install it with: pip install scikit-learn") from None


def study_data(data: LatencyData, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """The record of one file: how many rows each rule flags, the errors with all rows and without them, and what is left.

    `errors` has a row for each side, selection of rows and model; the trees' ceiling is the best of their settings, chosen after
    the fact, so that it is on the high side. `goal`: points that the additive model lies below it, within 10 %. `sessions`: how
    far what the additive model misses is common to encoder and decoder of a row, or to rows that follow each other: that share
    is the state of the machine on the day, which no column tells; and the share within 10 % on days that the fit has not seen.
    `points`: decoder, for the figure [ms].
    """
    flagged = measurement_faults(data)
    faulty = np.logical_or.reduce(list(flagged.values()))
    errors: list[dict[str, Any]] = []
    goal: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for rows, chosen in (("all", np.ones(len(data), dtype=bool)), ("unflagged", ~faulty)):
        part = data.select(chosen)
        if len(part) < FEWEST:
            raise ValueError(
                f"{data.file} has {counted(len(part), 'row')} that no rule flags as a fault; expected {FEWEST} or more"
            )
        found[rows] = predictions(part, seed, tick)
        for side, models in found[rows].items():
            latency = part.latency_ms(side)
            each = {model: fit_error(predicted, latency) for model, predicted in models.items()}
            each[CEILING] = max((each[name] for name in _TREES), key=lambda error: (error.within_10, -error.mape))
            errors += [{"side": side, "rows": rows, "model": model, **error_record(error)} for model, error in each.items()]
            short = 100 * (each[CEILING].within_10 - each[ADDITIVE].within_10)
            goal.append({"side": side, "rows": rows, "points_below_ceiling": short, "within_2_points": bool(short <= 2)})
    missed = {side: np.log(data.latency_ms(side) / found["all"][side][ADDITIVE]) for side in ("encoder", "decoder")}
    return {
        "device": data.facts.name,
        "facts": asdict(data.facts),
        "file": data.file,
        "sha256": data.sha256,
        "rows": len(data),
        "flagged": {**{rule: int(rows.sum()) for rule, rows in flagged.items()}, "any": int(faulty.sum())},
        "errors": errors,
        "goal": goal,
        "sessions": {
            "encoder_with_decoder": _correlation(missed["encoder"], missed["decoder"]),
            **{f"{side}_with_next_row": _correlation(own[:-1], own[1:]) for side, own in missed.items()},
            **{
                f"{side}_within_10_by_file_order": by_file_order(layer_work(data, side), data.latency_ms(side)).within_10
                for side in missed
            },
        },
        "points": {
            "measured_ms": _rounded(data.latency_ms("decoder")),
            "predicted_ms": _rounded(found["all"]["decoder"][ADDITIVE]),
            "flagged": [int(row) for row in np.flatnonzero(faulty)],
        },
    }


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    if min(left.std(), right.std()) == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.usage = argparse.SUPPRESS  # a mistake on the command line is answered in one sentence
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.csv", help="latencies [ms] in HAT's format, a file a device")
    facts = parser.add_argument_group("what a file that is not HAT's does not say (one value for all such files, or one for each)")
    facts.add_argument("--device-name", nargs="+", metavar="NAME", help="device; its file is called NAME-TASK.json")
    facts.add_argument("--task", nargs="+", metavar="NAME", help="what was translated, such as iwslt14deen")
    facts.add_argument("--tokens", nargs="+", type=int, metavar="N", help="tokens that the encoder ran on")
    facts.add_argument("--steps", nargs="+", type=int, metavar="N", help="steps that the decoder column is the sum of")
    facts.add_argument("--beam", nargs="+", type=int, metavar="N", help="sequences decoded side by side")
    facts.add_argument("--vocabulary", nargs="+", type=int, metavar="N", help="tokens of the decoder's output head")
    facts.add_argument("--source", nargs="+", metavar="WORDS", help="who measured it (default: not stated)")
    parser.add_argument("--published", action="store_true", help="fit the nine latencies that the paper publishes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the folds and trees (default %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("results/latency_data"), metavar="DIR", help="folder (default %(default)s)"
    )
    parser.add_argument(
        "--devices", type=Path, metavar="DIR", help="folder for a device file of each device (default: none are written)"
    )
    return parser


@dataclass(frozen=True)
class GivenFacts:
    """What the flags say of files whose content is not known: one value for all of them, or one for each."""

    device_name: tuple[str, ...] | None
    task: tuple[str, ...] | None
    tokens: tuple[int, ...] | None
    steps: tuple[int, ...] | None
    beam: tuple[int, ...] | None
    vocabulary: tuple[int, ...] | None
    source: tuple[str, ...] | None


@dataclass(frozen=True)
class LatencyDataOptions:
    """What the study was asked for, see --help; ValueError where there is nothing to do, or for a negative seed."""

    files: tuple[Path, ...]
    facts: GivenFacts
    published: bool
    seed: int
    output: Path
    devices: Path | None

    def __post_init__(self) -> None:
        if not self.files and not self.published:
            raise ValueError("there is nothing to do; name one or more CSV files of HAT's format, or ask for --published")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected a whole number of at least 0")


def _read_all(options: LatencyDataOptions) -> list[LatencyData]:
    """The files; ValueError if two would have one device file."""
    facts = _facts_given(options)
    read: list[LatencyData] = []
    for path in options.files:
        data = read_data(path, facts.get(path))
        if twice := [other.file for other in read if other.facts.name == data.facts.name]:
            raise ValueError(
                f"{twice[0]} and {data.file} would both be the device file {data.facts.name}.json; give each file its "
                "--device-name and --task"
            )
        read.append(data)
    return read


def _facts_given(options: LatencyDataOptions) -> dict[Path, Facts]:
    """What the flags say of the files whose content is not known; nothing if they say nothing."""
    unknown = [path for path in dict.fromkeys(options.files) if not is_known(path)]
    said = vars(options.facts)
    given = {name: said[name] for name in (*GIVEN, "source") if said[name] is not None}
    for name, values in given.items():
        flag = f"--{name.replace('_', '-')}"
        if not unknown:
            raise ValueError(f"{flag} is given, but no file that it could be said of; leave it out")
        if len(values) not in (1, len(unknown)):
            raise ValueError(
                f"{flag} has {len(values)} values; expected one, or one for each of {counted(len(unknown), 'unknown file')}"
            )
    missing = [name for name in GIVEN if name not in given]
    if not given or not unknown:
        return {}
    if missing:
        raise ValueError(asked_for(unknown[0], missing))
    columns = {name: values * (len(unknown) if len(values) == 1 else 1) for name, values in given.items()}
    return {
        path: given_facts(**dict(zip(columns, row, strict=True)))
        for path, row in zip(unknown, zip(*columns.values(), strict=True), strict=True)
    }


def _earlier(path: Path) -> dict[str, Any]:
    """The record in `path`, as a run adds its own part to it; nothing if there isn't one."""
    if not path.exists():
        return {}
    record = read_json("result", path)
    if not isinstance(record, dict) or record.get("study") != "latency_data":
        raise ValueError(f"{path} is not a result of this study; move it, or choose another folder with --output")
    return record


def _bar(steps: int, what: str) -> tqdm[Any]:
    return tqdm(total=steps, desc=what, bar_format="{desc:<28}{percentage:3.0f} %|{bar}| {elapsed}<{remaining}")


def _run_data(read: Sequence[LatencyData], seed: int) -> Iterator[dict[str, Any]]:
    with _bar(len(read) * 2 * len(SIDES) * len(_TREES), "boosted trees") as bar:
        for data in read:
            yield study_data(data, seed, bar.update)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study with command-line flags; ValueError for bad input, ImportError where scikit-learn is missing."""
    options = read_options(LatencyDataOptions, command_line(), argv)
    read = _read_all(options)
    if read:
        _scikit_learn()
    from studies.latency_data.figures import draw_data, draw_published, print_data, print_published

    folder = output_folder(options.output)
    if options.devices is not None:
        options.devices.mkdir(parents=True, exist_ok=True)
    record = {"study": "latency_data", **_earlier(folder / "results.json")}
    devices: list[tuple[Device, Path]] = []
    if read:
        with threadpool_limits(1):  # more threads cost more than they save on data of this size
            parts = list(_run_data(read, options.seed))
        print_data(parts)
        record["data"] = {
            "provenance": provenance(options.seed, ("numpy", "scipy", "scikit-learn", "matplotlib")),
            "folds": FOLDS,
            "trees": _TREES,
            "rules": {"unsteady": f"std > {UNSTEADY:g} mean", "slow": f"FLOP/s of encoder < {SLOW:g} FLOP/s of decoder"},
            "devices": [{key: value for key, value in part.items() if key != "points"} for part in parts],
        }
        for part, data in zip(record["data"]["devices"], read, strict=True):
            faulty = np.logical_or.reduce(list(measurement_faults(data).values()))
            part["encoder_check"] = encoder_check(data.select(~faulty))
            if options.devices is not None:
                devices.append((hat_device(data, options.seed), options.devices))
    if options.published:
        with _bar(1 + len(PUBLISHED_MS), "sets of kinds of work") as bar:
            fit = fit_published(bar.update)
        record["published"] = {"provenance": provenance(0, ("numpy", "scipy", "matplotlib")), **published_record(fit)}
        print_published(record["published"])
        if options.devices is not None:
            devices.append((published_device(fit), options.devices))
    write_json(folder / "results.json", record)
    if read:
        save_figure(draw_data(parts), folder / "latency_data.png")
    if options.published:
        save_figure(draw_published(record["published"]), folder / "latency_published.png")
    for device, place in devices:
        write_device(device, place / f"{device.name}.json")
