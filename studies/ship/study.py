"""From a design to an artefact in its runtime, measured there and compared with what was promised.

    python -m studies.ship results/train --to gguf:q8_0 --text held_out.txt
    python -m studies.ship results/design/design.json --to ort-genai     random weights: speed and size, no perplexity
    python -m studies.ship results/train --to gguf:q4_0 --device my-board.json

Writes the network in the runtime's form, runs it there by a client that knows nothing of this package, and compares greedy text and
scores with PyTorch. Then it measures bytes, memory, the milliseconds of a prefill and of a decoding step, and, with --text, the
perplexity beside PyTorch's. The table has a line for each budget of the design: promised is the limit, predicted what the cost
model says of this network, measured what the artefact showed. A latency is compared with its budget where runtime, weights, threads
and machine are those of the table that predicted it; another one is shown and judged by its prediction.

The output folder gets the artefact, ship.json and a model card with the table, atomically. Where a budget is exceeded nothing is
written, unless --anyway says so, and an earlier result stays.

Exit code: 0 shipped; 2 a mistake in the command, or an artefact that fails; 3 a budget is exceeded, measured or predicted; 130
Ctrl-C, and an earlier result stays as it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.problem_file import ReadQuantity
from formulation.records.files import replace_file, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import brief
from hardware_models.device import Device, read_device
from hardware_models.latency import Latency, LatencyTable
from hardware_models.names import quantity_from_dict
from hardware_models.workload import Workload
from merino_net.corpus.text import Text
from merino_net.export import ExportedForm, write_form
from merino_net.network.counting import parameter_count
from merino_net.network.registration import require_network
from merino_net.shipping import forms
from merino_net.shipping.forms import ExportChoice, differences_text, forms_text, read_choice
from merino_net.shipping.hub_folder import check_replaceable, files_in, replace_folder
from merino_net.shipping.promises import Made, differences, exit_code
from merino_net.shipping.runtimes import Job, Report, Runtime, Timing
from studies.budget_flags import add_trust_argument
from studies.ship.artefact import PassKind, Perplexity, ProcessMemory, TimedPass, memory_in, perplexity, visited, windows_of
from studies.ship.compared import Kept, Place, Shown, compared, lengths_of, promised_table, tables_of, usual_pace_of
from studies.ship.network import Asked, ToShip, network_of, read_asked

if TYPE_CHECKING:
    from formulation import Architecture

_FORMAT, _VERSION = "merino ship", 1
_RECORD, _CARD = "ship.json", "README.md"
_WINDOW = 256
"""Tokens of a window of the text, the start token counted, where the network has as many positions."""
_ROOM = 3
"""Positions that the longest prompt leaves free, for the steps that are timed behind it."""


def runtime_forms() -> Mapping[str, forms.ExportForm]:
    """The forms that a client runs."""
    return {name: form for name, form in forms.FORMS.items() if form.runtime is not None}


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    known = forms_text(runtime_forms()).replace("\n", "\n    ")
    parser = command_parser(__spec__, __doc__, f"runtimes:\n    {known}")
    parser.add_argument("design", metavar="DESIGN", help="a folder that merino train wrote, or a design file: random weights")
    parser.add_argument("--to", required=True, metavar="RUNTIME[:WEIGHTS]", help="the runtime, and in which weights")
    parser.add_argument("--output", default="results/ship", metavar="FOLDER", help="new, or an earlier one (default: %(default)s)")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="SOURCE", help="measure the perplexity on it: files, folders or hub:OWNER/NAME"
    )
    parser.add_argument(
        "--text-tokens", type=int, default=2048, metavar="N", help="tokens of the text at most (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        metavar="FILE[:TABLE]",
        help="take milliseconds from this device's tables instead of this machine's clock: a device file or a shipped name",
    )
    parser.add_argument(
        "--tokens", type=int, default=128, metavar="T", help="of a prompt, or in the cache, to time beside those of budgets (128)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="of the runtime (default: one a processor)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="to time each pass for, in each of three to eight processes (1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights (default: %(default)s)")
    parser.add_argument("--name", metavar="NAME", help="of the model in its card (default: the output folder's name)")
    parser.add_argument("--anyway", action="store_true", help="write the folder though a budget is exceeded; the exit code stays 3")
    add_trust_argument(parser)
    return parser


@dataclass(frozen=True)
class ShipOptions:
    """What is to be shipped where, see --help; ValueError for a number out of range, and an unknown runtime or form."""

    design: str
    to: str
    output: str
    text: tuple[str, ...]
    text_tokens: int
    device: str | None
    tokens: int
    threads: int
    seconds: float
    seed: int
    name: str | None
    anyway: bool
    trust_code: bool

    def __post_init__(self) -> None:
        for name in ("text_tokens", "tokens", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.seconds < 3600:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number of seconds, such as 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed is {self.seed}; expected 0 or more")
        _ = self.choice

    @property
    def choice(self) -> ExportChoice:
        """The form and the weights."""
        return read_choice(self.to, runtime_forms())

    @property
    def runtime(self) -> Runtime:
        """What runs it."""
        runtime = self.choice.form.runtime
        assert runtime is not None  # `runtime_forms` have one
        return runtime

    @property
    def read_quantity(self) -> ReadQuantity:
        """How a design file names quantities; code only if the user trusts it."""
        return partial(quantity_from_dict, trust_code=self.trust_code)

    @property
    def tables(self) -> tuple[Device, list[LatencyTable]] | None:
        """The device that --device names, with its tables of the artefact; None without one."""
        if self.device is None:
            return None
        name, colon, table = self.device.rpartition(":")
        if not colon or "/" in table or "\\" in table:
            name, table = self.device, ""
        device = read_device(name)
        return device, tables_of(device, table or None, self.runtime, self.choice.weights)


@dataclass(frozen=True)
class InRuntime:
    """What the artefact showed in its runtime.

    Attributes:
        version: of the runtime.
        load_ms: from the files to a model that runs [ms].
        memory: of its process, by tokens of a prompt.
        passes: what a clock said, by phase and length; empty where a device's tables tell the milliseconds.
        pace_ms: of the machine, as it counted as usual; None without a clock.
        elsewhere: what a device's tables say, by workload: milliseconds, or why not.
        perplexity: on the text; None without one.
    """

    version: str
    load_ms: float
    memory: Mapping[int, ProcessMemory]
    passes: Mapping[PassKind, TimedPass]
    pace_ms: float | None
    elsewhere: Mapping[Workload, float | str]
    perplexity: Perplexity | None


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = read_options(ShipOptions, command_line(), arguments)
    asked = read_asked(options.design, options.read_quantity)
    output = Path(options.output).resolve()
    check_replaceable(output, Path(options.design), _RECORD, _FORMAT, "an earlier shipment")
    if options.text and asked.weights is None:
        raise ValueError(f"{options.design} gives random weights, so no perplexity; leave --text out or name a trained folder")
    if options.text and asked.weights is not None and not any(asked.weights.glob("tokenizer*")):
        raise ValueError(f"{asked.weights} has no tokenizer to read --text with; save the network's own beside the weights")
    require_network()
    options.choice.require()
    tables = options.tables
    network = network_of(asked, options.seed)
    made = _made(network)
    if fault := _other_network(asked, made):
        print(f"a promise is broken: {fault}", file=sys.stderr)
        return ExitCode.BROKEN_PROMISE
    with replace_folder(output) as folder:
        form = write_form(options.choice, network.model, network.tokenizer, folder)
        place = _place(options, tables)
        found = _measured(options, asked, network, folder / form.folder, place, tables)
        shown = Shown(asked.design, made, form.weight_bytes, found.passes, found.memory, found.elsewhere)
        kept = compared(asked.budgets, shown, place)
        facts = _facts(options, network, form, found, place)
        print(text_table(("", ""), facts, {0, 1}).split("\n", 2)[2])
        if kept:
            print(f"\n{promised_table(kept)}")
        outcomes = [one.outcome for one in kept]
        if any(one.exceeds for one in outcomes) and not options.anyway:
            shutil.rmtree(folder)
            print(f"\nNothing was written to {options.output}; --anyway writes what exceeds a budget.", flush=True)
        else:
            files = _write(options, asked, network, folder, output.name, form, found, facts, kept)
            print(f"\nWritten to {options.output}: {counted(files, 'file')}", flush=True)
    return exit_code(outcomes)


def _made(network: ToShip) -> Made:
    """What the network is, as promises are compared with it."""
    weights = sum(parameter.nbytes for parameter in network.model.parameters())
    return Made(network.model.config, parameter_count(network.model), weights)


def _other_network(asked: Asked, made: Made) -> str:
    """In what the trained network is not the design but for its vocabulary, in words; empty where it is."""
    built = made.in_terms_of(asked.design)
    if built is None:
        return f"{asked.weights} holds a {made.config.model_type} model, not the design"
    others = [one for one in differences(asked.design, built) if not one.startswith("vocabulary")]
    return f"the network is not the design, {others[0]}" if others else ""


def _place(options: ShipOptions, tables: tuple[Device, list[LatencyTable]] | None) -> Place:
    import torch

    from hardware_models.profile_standalone import conditions

    torch.set_num_threads(options.threads)
    hardware = conditions("", "", "cpu")["hardware"]
    return Place(options.runtime, options.choice.weights, options.threads, hardware, None if tables is None else tables[0])


def _measured(
    options: ShipOptions,
    asked: Asked,
    network: ToShip,
    folder: Path,
    place: Place,
    tables: tuple[Device, list[LatencyTable]] | None,
) -> InRuntime:
    from hardware_models.profile_standalone import Pace

    reports: list[Report] = []

    def run(job: Job) -> Report:
        reports.append(place.runtime.run(folder, job))
        return reports[-1]

    architecture = _made(network).in_terms_of(asked.design)
    assert architecture is not None  # `_other_network` refused others
    lengths = lengths_of(asked.budgets, options.tokens, architecture.positions - _ROOM)
    passes: Mapping[PassKind, TimedPass] = {}
    usual = None
    if tables is None:
        passes, memory, usual = visited(run, Pace(), lengths, options.threads, options.seconds, usual_pace_of(asked.budgets, place))
    else:
        memory = {length: memory_in(run(Job(options.threads, timing=Timing(length, 0.01)))) for length in lengths}
    elsewhere = {} if tables is None else {table.workload: _told(table, architecture) for table in tables[1]}
    texts = None
    if options.text:
        window = min(_WINDOW, architecture.positions)
        sequences = windows_of(Text(options.text), network.tokenizer, window, options.text_tokens)
        texts = perplexity(run, network.model, sequences, options.threads, window)
    load = median(report.load_ms for report in reports)
    return InRuntime(reports[0].version, load, memory, passes, usual, elsewhere, texts)


def _told(table: LatencyTable, design: Architecture) -> float | str:
    """What a table says of a design [ms], or why it says nothing."""
    try:
        return Latency(table)(design)
    except ValueError as error:
        return brief(error)


def _facts(options: ShipOptions, network: ToShip, form: ExportedForm, found: InRuntime, place: Place) -> list[tuple[str, str]]:
    """What was found, in words, a line a fact."""
    trained = "trained" if network.trained else f"random, by seed {options.seed}: speed and size hold, what it writes means nothing"
    facts = [
        ("runtime", f"{place.runtime.title} {found.version}, {counted(options.threads, 'thread')}"),
        ("weights", f"{form.weights}, {trained}"),
        ("on disk", f"{form.bytes / 1e6:,.2f} MB, of which weights {form.weight_bytes / 1e6:,.2f} MB"),
        ("difference from PyTorch", differences_text(form.differences)),
    ]
    for length, taken in found.memory.items():
        if taken.peak_bytes:
            own = f"of which {taken.own_bytes / 1e6:,.1f} MB since it read the model"
            facts.append((f"peak memory, {length:,} tokens", f"{taken.peak_bytes / 1e6:,.1f} MB of the process, {own}"))
    facts.append(("ready after", f"{found.load_ms:,.0f} ms"))
    for (phase, length), timed in found.passes.items():
        busy = f"; the machine was busy, up to {timed.slower:.2f} times as slow as usual" if timed.busy else ""
        facts.append((_pass_text(phase, length), f"{timed.median_ms:.4g} ms, median of {timed.passes}{busy}"))
    assert place.device is not None or not found.elsewhere
    for workload, told in found.elsewhere.items():
        value = told if isinstance(told, str) else f"{told:.4g} ms, by a table measured on {place.device.name}"  # type: ignore[union-attr]
        facts.append((_pass_text(workload.phase, workload.seq_len), value))
    if (text := found.perplexity) is not None:
        facts.append(
            (
                "perplexity per token",
                f"{text.artefact:,.4g}, in PyTorch {text.pytorch:,.4g} (loss {text.loss:+.4f} nat), "
                f"{text.tokens:,} tokens in windows of {text.window}",
            )
        )
    return facts


def _pass_text(phase: str, length: int) -> str:
    return f"prefill of {length:,} tokens" if phase == "prefill" else f"a token after {length:,}"


def _write(
    options: ShipOptions,
    asked: Asked,
    network: ToShip,
    folder: Path,
    called: str,
    form: ExportedForm,
    found: InRuntime,
    facts: Sequence[tuple[str, str]],
    kept: Sequence[Kept],
) -> int:
    """Put the record, the design and the card beside the artefact; how many files there are then."""
    from merino_net.shipping.model_card import model_card

    shutil.copyfile(asked.path, folder / "design.json")
    if asked.weights is not None and (asked.weights / "training.json").is_file():
        shutil.copyfile(asked.weights / "training.json", folder / "training.json")
    record = {
        "format": _FORMAT,
        "version": _VERSION,
        "trained": network.trained,
        "fingerprint": network.fingerprint,
        "threads": options.threads,
        "runtime": {"name": options.runtime.name, "version": found.version},
        "form": asdict(form),
        "facts": [{"name": name, "value": value} for name, value in facts],
        "load_ms": found.load_ms,
        "memory": [{"tokens": length, **asdict(one)} for length, one in found.memory.items()],
        "passes": [{"phase": phase, "tokens": length, **asdict(one)} for (phase, length), one in found.passes.items()],
        "pace_ms": found.pace_ms,
        "device": [{"workload": asdict(workload), "told": told} for workload, told in found.elsewhere.items()],
        "perplexity": None if found.perplexity is None else asdict(found.perplexity),
        "budgets": [one.to_dict() for one in kept],
        "files": sorted({*files_in(folder), _RECORD, _CARD}),
        "provenance": provenance(options.seed, ("torch", "transformers", *options.choice.packages)),
    }
    write_json(folder / _RECORD, record)
    card = model_card(folder, options.name or called, network.model.config)
    with replace_file(folder / _CARD) as file:
        file.write(card.encode())
    return len(record["files"])  # type: ignore[arg-type]
