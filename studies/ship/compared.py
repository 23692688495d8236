"""Each budget of a design: promised, predicted by its cost model, and measured on the artefact where it can be.

A latency is compared where it is the same thing: the same runtime, weights, threads and machine as the table that predicted it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from formulation import Architecture, Budget, Quantity
from formulation.command.words import counted, text_table, value_text
from hardware_models import ActivationMemory, CacheMemory, Latency, Memory, WeightMemory
from hardware_models.device import Device
from hardware_models.latency import LatencyTable
from hardware_models.memory import MemoryShare
from hardware_models.roofline import DecodeEnergy, DecodeLatency, GenerationEnergy, GenerationLatency, PrefillEnergy, PrefillLatency
from hardware_models.workload import Workload
from merino_net.shipping.promises import Made, Outcome, Promise
from merino_net.shipping.runtimes import Runtime
from studies.ship.artefact import PassKind, ProcessMemory, TimedPass
from studies.ship.promised import promises_of


@dataclass(frozen=True)
class Place:
    """Where and how the artefact ran.

    Attributes:
        runtime: in which.
        weights: their number format.
        threads: of the runtime.
        hardware: as `hardware_models.profile_standalone.conditions` tells it.
        device: whose tables tell the milliseconds instead of a clock; None: they were measured here.
    """

    runtime: Runtime
    weights: str
    threads: int
    hardware: str
    device: Device | None = None

    def __str__(self) -> str:
        return f"{self.runtime.title}, {self.weights}, {counted(self.threads, 'thread')}"


@dataclass(frozen=True)
class Shown:
    """What an artefact showed of itself.

    Attributes:
        design: that was promised.
        made: the network.
        weight_bytes: of its files that hold weights.
        passes: milliseconds by phase and length.
        memory: of its process by length.
        elsewhere: milliseconds by workload that a device's table tells, or why it does not.
    """

    design: Architecture
    made: Made
    weight_bytes: int
    passes: Mapping[PassKind, TimedPass]
    memory: Mapping[int, ProcessMemory]
    elsewhere: Mapping[Workload, float | str]


@dataclass(frozen=True)
class MeasuredValue:
    """A value that was measured, or why none was.

    Attributes:
        value: in the unit of the budget; None: not measured.
        judged: whether it can meet or exceed the budget: it is the same thing.
        slowed: how many times other work slowed the machine down, at most: the value can meet the budget, and exceed it only where
            a value so many times smaller does.
        remark: what has to be known of it.
    """

    value: float | None
    judged: bool = True
    slowed: float = 1.0
    remark: str = ""


@dataclass(frozen=True)
class Kept:
    """A budget, and what became of it.

    Attributes:
        predicted: by its cost model.
        measured: on the artefact.
        finding: the same, with what has to be known of it.
    """

    predicted: Outcome
    measured: Outcome
    finding: MeasuredValue

    @property
    def outcome(self) -> Outcome:
        """What speaks: a value that exceeds the budget, measured before predicted; else the measured, else the predicted one."""
        value = self.measured.value
        counts = value is not None and self.finding.judged
        if value is not None and self.measured.exceeds:
            counts = counts and dataclasses.replace(self.measured, value=value / self.finding.slowed).exceeds
        return self.measured if counts and (self.measured.exceeds or not self.predicted.exceeds) else self.predicted

    def to_dict(self) -> dict[str, Any]:
        """As ship.json and the card have it."""
        return {
            "name": self.predicted.name,
            "unit": self.predicted.unit,
            "limit": self.predicted.limit,
            "at_least": self.predicted.at_least,
            "predicted": self.predicted.value,
            "measured": self.finding.value,
            "verdict": self.outcome.verdict,
            "remark": self.finding.remark,
        }


def compared(budgets: Sequence[Budget], shown: Shown, place: Place) -> list[Kept]:
    """Every budget with its values."""
    promises = promises_of(tuple(budgets), shown.design)
    return [_kept(budget, promise, shown, place) for budget, promise in zip(budgets, promises, strict=True)]


def _kept(budget: Budget, promise: Promise, shown: Shown, place: Place) -> Kept:
    finding = _found(budget.quantity, promise, shown, place)
    name, unit, limit, at_least = promise.name, promise.unit, promise.limit, promise.at_least
    predicted = Outcome(name, unit, limit, promise.predict(shown.made), False, at_least)
    return Kept(predicted, Outcome(name, unit, limit, finding.value, True, at_least), finding)


def lengths_of(budgets: Sequence[Budget], usual: int, longest: int) -> tuple[int, ...]:
    """Tokens of the prompts and caches that budgets speak of, as far as the network has positions; the usual ones first."""
    asked = [work[1] for budget in budgets if (work := _work(budget.quantity)) is not None]
    asked += [memory.seq_len for budget in budgets if (memory := _memory_of(budget.quantity)) is not None]
    return tuple(dict.fromkeys((min(usual, longest), *(length for length in asked if length <= longest))))


def _work(quantity: Quantity) -> PassKind | None:
    """The pass that a latency is of; None for anything else."""
    if isinstance(quantity, Latency) and quantity.table.quantity == "latency":
        return quantity.table.workload.phase, quantity.table.workload.seq_len
    if isinstance(quantity, PrefillLatency):
        return "prefill", quantity.seq_len
    if isinstance(quantity, DecodeLatency):
        return "decode", quantity.context
    return None


def _memory_of(quantity: Quantity) -> Memory | None:
    if isinstance(quantity, MemoryShare):
        return quantity.memory
    return quantity if isinstance(quantity, Memory) else None


def _found(quantity: Quantity, promise: Promise, shown: Shown, place: Place) -> MeasuredValue:
    if isinstance(quantity, WeightMemory):
        return _weights(quantity, shown, place)
    if (memory := _memory_of(quantity)) is not None:
        return _memory_found(quantity, memory, shown)
    if isinstance(quantity, CacheMemory | ActivationMemory):
        return MeasuredValue(None, remark=f"{place.runtime.title} does not tell its memory by parts")
    if (work := _work(quantity)) is not None:
        return _latency(quantity, work, shown, place)
    if isinstance(quantity, GenerationLatency):
        return MeasuredValue(None, remark="a prompt and many tokens; prefill and decode were measured apart")
    if isinstance(quantity, PrefillEnergy | DecodeEnergy | GenerationEnergy):
        return MeasuredValue(None, remark="nothing here measures energy")
    value = promise.measure(shown.made)
    return MeasuredValue(value, remark="" if value is not None else "a property of the design, which no runtime shows")


def _weights(quantity: WeightMemory, shown: Shown, place: Place) -> MeasuredValue:
    bits = 8 * shown.weight_bytes / shown.made.parameters
    same = f"{quantity.bits:g} bits a weight promised, {bits:.2f} shipped"
    return MeasuredValue(shown.weight_bytes, remark="" if abs(bits - quantity.bits) < 0.005 else same)


def _memory_found(quantity: Quantity, memory: Memory, shown: Shown) -> MeasuredValue:
    if memory.batch != 1:
        return MeasuredValue(None, remark=f"{memory.batch} sequences at a time; the client runs one")
    if memory.seq_len not in shown.memory:
        return MeasuredValue(None, remark=_too_long(memory.seq_len, shown))
    own = shown.memory[memory.seq_len]
    if not own.peak_bytes:
        return MeasuredValue(None, remark="this system does not tell what a process takes")
    share = quantity.ram_bytes if isinstance(quantity, MemoryShare) else 1
    return MeasuredValue(own.own_bytes / share, remark="of the process, since it began to read the model")


def _too_long(length: int, shown: Shown) -> str:
    return f"{length:,} tokens do not fit, and one more, into the network's positions" if shown.passes else "nothing was run here"


def _latency(quantity: Quantity, work: PassKind, shown: Shown, place: Place) -> MeasuredValue:
    workload = _workload(quantity)
    if place.device is not None:
        return _elsewhere(quantity, workload, shown, place.device)
    if workload.batch != 1:
        return MeasuredValue(None, remark=f"{workload.batch} sequences at a time; the client runs one")
    if work[0] == "prefill" and workload.logits != "last":
        return MeasuredValue(None, remark=f"{workload.logits} logits of a prompt; the client makes the last")
    if work not in shown.passes:
        return MeasuredValue(None, remark=_too_long(work[1], shown))
    taken = shown.passes[work]
    if isinstance(quantity, Latency):
        other = differs(quantity.table, place)
    else:
        sheet = getattr(quantity, "device").name  # noqa: B009  (every roofline has one)
        other = f"predicted from a datasheet of {sheet}; whether this machine is one is not known"
    if other:
        return MeasuredValue(taken.median_ms, judged=False, remark=f"measured in {place}; {other}")
    busy = f"the machine was busy, up to {taken.slower:.2f} times as slow as usual: ship again when it has nothing else to do"
    return MeasuredValue(taken.median_ms, slowed=taken.slower, remark=busy if taken.busy else "")


def _workload(quantity: Any) -> Workload:
    if isinstance(quantity, Latency):
        return quantity.table.workload
    if isinstance(quantity, PrefillLatency):
        return Workload("prefill", quantity.seq_len, quantity.batch, quantity.logits)
    return Workload("decode", quantity.context, quantity.batch)


def differs(table: LatencyTable, place: Place) -> str:
    """In what the passes of a table are not those of the artefact here, in words; empty where they are the same thing."""
    if table.name != place.runtime.table(place.weights, table.workload.phase):
        return f"the table is of another runtime, {table.name} of {table.device}"
    threads = table.how.get("threads")
    if threads != place.threads:
        return f"the table is of {'an unknown number of' if threads is None else threads} threads"
    hardware = table.how.get("hardware")
    if hardware != place.hardware:
        return f"the table is of another machine, {table.device} ({hardware or 'which does not say what it is'})"
    return ""


def usual_pace_of(budgets: Sequence[Budget], place: Place) -> float | None:
    """The machine's pace when nothing else runs [ms], as a table of the same thing knows it; None if there isn't one."""
    for budget in budgets:
        quantity = budget.quantity
        if isinstance(quantity, Latency) and not differs(quantity.table, place):
            pace = quantity.table.how.get("pace_ms")
            if isinstance(pace, int | float):
                return float(pace)
    return None


def tables_of(device: Device, place_table: str | None, runtime: Runtime, weights: str) -> list[LatencyTable]:
    """The tables of a device that tell the milliseconds of an artefact.

    Args:
        device: from its file.
        place_table: the one that was named; None: all of this runtime and these weights.
        runtime: of the artefact.
        weights: of the artefact.

    Raises:
        ValueError: if there isn't one, or the one named is of another runtime.
    """
    own = {runtime.table(weights, phase) for phase in ("prefill", "decode")}
    chosen = [device.table(place_table)] if place_table is not None else list(device.tables)
    found = [table for table in chosen if table.name in own]
    if not found:
        raise ValueError(
            f"{device.name} has no table of {runtime.title} with {weights} weights, such as {runtime.table(weights, 'decode')}; "
            f"it has {', '.join(table.name for table in chosen)}"
        )
    return found


def _elsewhere(quantity: Quantity, workload: Workload, shown: Shown, device: Device) -> MeasuredValue:
    of_device = quantity.table.device if isinstance(quantity, Latency) else getattr(quantity, "device").name  # noqa: B009
    value = shown.elsewhere.get(workload)
    if value is None:
        return MeasuredValue(None, remark=f"{device.name} has no such table of this runtime: {workload}")
    if isinstance(value, str):
        return MeasuredValue(None, remark=value)
    remark = f"by a table that was measured on {device.name}"
    if of_device != device.name:
        return MeasuredValue(value, judged=False, remark=f"{remark}; the budget is of {of_device}")
    return MeasuredValue(value, remark=remark)


def promised_table(kept: Sequence[Kept]) -> str:
    """A table for people, a line a budget."""

    def cell(value: float | None) -> str:
        return "-" if value is None else value_text(value)

    lines = [
        (
            one.predicted.name,
            one.predicted.unit,
            f"{one.predicted.sign} {value_text(one.predicted.limit)}",
            cell(one.predicted.value),
            cell(one.finding.value),
            one.outcome.verdict,
        )
        for one in kept
    ]
    remarks = [f"  {one.predicted.name}: {one.finding.remark}" for one in kept if one.finding.remark]
    shown = text_table(("budget of the design", "unit", "promised", "predicted", "measured", ""), lines, {0, 1, 5})
    return "\n".join((shown, *remarks))
