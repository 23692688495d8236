"""Latencies of whole transformers that others measured, compared with a model that adds up over layers: HAT's, a watch's, and those
of the paper's nine networks.

    python -m studies.latency_data FILE.csv [FILE.csv ...]
    python -m studies.latency_data FILE.csv [FILE.csv ...] --devices hardware_models/devices
    python -m studies.latency_data MINE.csv --device-name my-board --task mt --tokens 30 --steps 30 --beam 5 --vocabulary 8000
    python -m studies.latency_data pixel_watch_5.csv --devices hardware_models/devices
    python -m studies.latency_data pixel_watch_5.csv --score pixel-watch-5
    python -m studies.latency_data --published

Three models are cross-validated on the same ten folds: the additive model, FLOPs alone, and boosted trees as the ceiling; with all
rows, and again without those that a stated rule (`measurement_faults`) flags. A file does not say what was measured: HAT's own are
recognised by their content, and flags describe any other. A file of the watch's measurements is known by its columns; with --score
it is compared with the tables of a device file instead. The files' formats are in `studies.latency_data.hat_file` and
`studies.latency_data.watch_file`, models and device files of them in `studies.latency_data.devices` and
`studies.latency_data.watch`, designs with and without the watch's cliff in `studies.latency_data.cliff`, the paper's nine in
`studies.latency_data.published`, figures and tables in `studies.latency_data.figures`. Writes results.json, each part under its
own key, a figure for each part, and with --devices the device files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import read_json
from hardware_models.device import Device, read_device, write_device
from hardware_models.fit import assign_folds, cross_validated, fit_error, nonnegative_fit
from studies.latency_data.cliff import compare_designs
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
from studies.latency_data.published import m1_device, m1_fits, nano_device, nano_fit
from studies.latency_data.trees import ADDITIVE, CEILING, scikit_learn
from studies.latency_data.watch import MODELS, score, study_watch, watch_device, without_condition
from studies.latency_data.watch_file import FEWEST_SCORED, WatchData, is_watch_file, read_watch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        trees = scikit_learn().HistGradientBoostingRegressor(**settings, early_stopping=False, random_state=seed)
        trees.fit(columns[~held], np.log(latency_ms[~held]))
        predicted[held] = np.exp(trees.predict(columns[held]))
    return predicted


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
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE.csv", help="latencies in HAT's format, a file a device, or of the watch"
    )
    facts = parser.add_argument_group("what a file that is not HAT's does not say (one value for all such files, or one for each)")
    facts.add_argument("--device-name", nargs="+", metavar="NAME", help="device; its file is called NAME-TASK.json")
    facts.add_argument("--task", nargs="+", metavar="NAME", help="what was translated, such as iwslt14deen")
    facts.add_argument("--tokens", nargs="+", type=int, metavar="N", help="tokens that the encoder ran on")
    facts.add_argument("--steps", nargs="+", type=int, metavar="N", help="steps that the decoder column is the sum of")
    facts.add_argument("--beam", nargs="+", type=int, metavar="N", help="sequences decoded side by side")
    facts.add_argument("--vocabulary", nargs="+", type=int, metavar="N", help="tokens of the decoder's output head")
    facts.add_argument("--source", nargs="+", metavar="WORDS", help="who measured it (default: not stated)")
    parser.add_argument("--published", action="store_true", help="fit the published latencies of the paper's nine networks")
    parser.add_argument("--score", metavar="DEVICE", help="compare a file of the watch with a device, shipped or in a .json file")
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
    score: str | None
    seed: int
    output: Path
    devices: Path | None

    def __post_init__(self) -> None:
        if not self.files and not self.published:
            raise ValueError("there is nothing to do; name one or more CSV files of HAT's format, or ask for --published")
        if self.score is not None and not any(map(is_watch_file, self.files)):
            raise ValueError("--score is given, but no file with the columns of the watch's measurements; name one")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected a whole number of at least 0")

    @property
    def watch_file(self) -> Path | None:
        """The file of the watch among those given; ValueError if there are several."""
        found = [path for path in self.files if is_watch_file(path)]
        if len(found) > 1:
            raise ValueError(f"{found[0].name} and {found[1].name} are both measurements of a watch; name one of them at a time")
        return found[0] if found else None

    @property
    def hat_files(self) -> tuple[Path, ...]:
        """The other files."""
        return tuple(path for path in self.files if not is_watch_file(path))


def _read_all(options: LatencyDataOptions) -> list[LatencyData]:
    """The files; ValueError if two would have one device file."""
    facts = _facts_given(options)
    read: list[LatencyData] = []
    for path in options.hat_files:
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
    unknown = [path for path in dict.fromkeys(options.hat_files) if not is_known(path)]
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


def _run_watch(data: WatchData, seed: int) -> tuple[dict[str, Any], Device]:
    """The record of the watch's file, with designs that know the cliff and designs that do not, and its device."""
    with _bar(3 * len(MODELS), "models of the watch") as bar:
        record = study_watch(data, seed, bar.update)
    device = watch_device(data, seed)
    token = next(model for model in MODELS if model.table == "token")
    known = device.table("token")
    blind = without_condition(data, token).table(device.name, known.validated, None, {})
    return {**record, "designs": compare_designs(known, blind)}, device


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study with command-line flags; ValueError for bad input, ImportError where scikit-learn is missing."""
    options = read_options(LatencyDataOptions, command_line(), argv)
    read = _read_all(options)
    watch = (
        None if options.watch_file is None else read_watch(options.watch_file, FEWEST if options.score is None else FEWEST_SCORED)
    )
    scored = None if options.score is None else read_device(options.score)
    if read or (watch and not scored):
        scikit_learn()
    from studies.latency_data import figures

    folder = output_folder(options.output)
    if options.devices is not None:
        options.devices.mkdir(parents=True, exist_ok=True)
    record = {"study": "latency_data", **_earlier(folder / "results.json")}
    devices: list[Device] = []
    drawn: dict[str, Figure] = {}
    trees = ("numpy", "scipy", "scikit-learn", "matplotlib")
    if read:
        with threadpool_limits(1):  # more threads cost more than they save on data of this size
            parts = list(_run_data(read, options.seed))
        figures.print_data(parts)
        record["data"] = {
            "provenance": provenance(options.seed, trees),
            "folds": FOLDS,
            "trees": _TREES,
            "rules": {"unsteady": f"std > {UNSTEADY:g} mean", "slow": f"FLOP/s of encoder < {SLOW:g} FLOP/s of decoder"},
            "devices": [_without_points(part) for part in parts],
        }
        for part, data in zip(record["data"]["devices"], read, strict=True):
            faulty = np.logical_or.reduce(list(measurement_faults(data).values()))
            part["encoder_check"] = encoder_check(data.select(~faulty))
            if options.devices is not None:
                devices.append(hat_device(data, options.seed))
        drawn["latency_data"] = figures.draw_data(parts)
    if watch and scored:
        scores = score(watch, scored)
        figures.print_scores(watch.file, scored.name, scores)
        record["scores"] = {
            "provenance": provenance(0, ("numpy", "scipy", "matplotlib")),
            "device": scored.name,
            "file": watch.file,
            "sha256": watch.sha256,
            "tables": [_without_points(one) for one in scores],
        }
        drawn["latency_scores"] = figures.draw_watch({one["table"]: one["points"] for one in scores}, "by the device file")
    elif watch:
        with threadpool_limits(1):
            part, device = _run_watch(watch, options.seed)
        figures.print_watch(part)
        record["watch"] = {"provenance": provenance(options.seed, trees), "folds": FOLDS, **_without_points(part)}
        drawn["latency_watch"] = figures.draw_watch(part["points"], "out of fold")
        devices.append(device)
    if options.published:
        nano, m1 = nano_fit(), m1_fits()
        made = provenance(0, ("numpy", "scipy", "matplotlib"))
        record["published"] = {"provenance": made, **nano.record()}
        record["apple_m1"] = {"provenance": made, "lengths": [fit.record() for fit in m1]}
        figures.print_published("the paper's Jetson Nano", record["published"])
        for one in record["apple_m1"]["lengths"]:
            figures.print_published("an Apple M1", one)
        drawn["latency_published"] = figures.draw_published(record["published"])
        devices += [nano_device(), m1_device()]
    write_json(folder / "results.json", record)
    for name, figure in drawn.items():
        save_figure(figure, folder / f"{name}.png")
    if options.devices is not None:
        for device in devices:
            write_device(device, options.devices / f"{device.name}.json")


def _without_points(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the record without what only its figure shows."""
    return {key: value for key, value in part.items() if key != "points"}
