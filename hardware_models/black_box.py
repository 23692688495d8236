"""Black boxes: any function of a design as a cost, such as a latency really measured for each, remembered and with its noise.

Heuristics call it. Exact solvers need sums over blocks: `BlackBox.table` fits one to some measured designs.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from formulation import Architecture, NoIdentity, Quantity, SearchSpace, fingerprint
from formulation.architecture import positive_integer
from formulation.command.processes import end_with_parent
from formulation.records.reading import read_record
from formulation.records.rows import RowFile
from hardware_models.latency import LatencyTable, MeasuredNetwork, Validated, fit_table
from hardware_models.workload import BODY_FEATURES, Workload


@dataclass(frozen=True)
class _Call:
    """A row of the file: the calls of a function for a design."""

    identity: str
    design: Architecture
    values: tuple[float, ...]


@dataclass(frozen=True)
class BlackBox(Quantity):
    """The median of `repetitions` calls of a function, each design's calls made once and remembered.

    With `confidence` p it is the value that one more call stays below with probability p, if calls of one design scatter as a
    log-normal: exp(m + t·s·√(1 + 1/n)) with mean m and standard deviation s of the logarithms of the n calls, and t the p-quantile
    of Student's distribution with n − 1 degrees of freedom.

    Attributes:
        name: what messages and tables call it.
        unit: of the values.
        function: from a design to a number above 0, in the unit; may give another number each time.
        repetitions: calls of each design; 1 for a function without noise.
        file: where calls are kept from one run to the next (JSON lines), None: in memory only.
        confidence: a probability, None: the median itself.
        identity: what tells the function from others where its content cannot: an object that talks to a board, the day of a
            session.

    A row of the file holds the identity of the function that was called, or its `formulation.fingerprint` where none is given, and
    only rows of the same one are used. A function without either is called again, and a warning says why.

    Raises:
        ValueError: for a call that does not give a finite number above 0, and for a confidence without two repetitions.
    """

    name: str
    unit: str
    function: Callable[[Architecture], float] = field(repr=False)
    repetitions: int = 3
    file: Path | None = field(default=None, repr=False, compare=False)
    confidence: float | None = None
    identity: str | None = None
    _seen: dict[Architecture, tuple[float, ...]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repetitions", positive_integer("repetitions", self.repetitions))
        if self.confidence is not None:
            if not 0.5 <= self.confidence < 1:
                raise ValueError(f"the confidence is {self.confidence!r}; expected a probability of at least 0.5 and less than 1")
            if self.repetitions < 2:
                raise ValueError(
                    f"{self.name} calls each design once, which says nothing of its noise; expected repetitions=2 or more"
                )

    def at_confidence(self, confidence: float) -> BlackBox:
        """See `Quantity.at_confidence`; it remembers with this one."""
        return replace(self, confidence=confidence)

    def __call__(self, architecture: Architecture) -> float:
        values = self.calls(architecture)
        if self.confidence is None:
            return statistics.median(values)
        from scipy.stats import t as student

        logs = [math.log(value) for value in values]
        spread = statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
        return math.exp(statistics.fmean(logs) + student.ppf(self.confidence, len(logs) - 1) * spread)

    @property
    def designs(self) -> int:
        """How many designs it has been called for, here or, with a file, before."""
        return len(self._seen)

    def calls(self, architecture: Architecture) -> tuple[float, ...]:
        """The numbers that the function gave for a design; it is called if there are none yet."""
        if not self._knows(architecture):
            self._remember(architecture, self._called(architecture))
        return self._seen[architecture]

    def values(self, architectures: Sequence[Architecture], jobs: int = 1) -> np.ndarray:
        """The values of many designs, (n,); those not yet known are called in `jobs` processes at a time.

        With more than one process the function must be one that pickle can send: of a module, or a partial of such a one. For a
        latency one process at a time is right. A stop loses no call that has ended where there is a file.
        """
        unknown = [architecture for architecture in dict.fromkeys(architectures) if not self._knows(architecture)]
        if positive_integer("jobs", jobs) > 1 and unknown:
            alone = replace(self, file=None, _seen={})
            with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool:
                calls = {pool.submit(alone._called, architecture): architecture for architecture in unknown}
                try:
                    for call in as_completed(calls):
                        self._remember(calls[call], call.result())
                finally:
                    pool.shutdown(cancel_futures=True)
        return np.array([self(architecture) for architecture in architectures])

    def _knows(self, architecture: Architecture) -> bool:
        if self._rows is not None and not self._seen:
            self._seen.update(self._remembered)
        return len(self._seen.get(architecture, ())) >= self.repetitions

    def _remember(self, architecture: Architecture, values: tuple[float, ...]) -> None:
        self._seen[architecture] = values
        if self._rows is not None:
            self._rows.append({"identity": self._function_identity, "design": architecture.to_dict(), "values": values})

    def _called(self, architecture: Architecture) -> tuple[float, ...]:
        return tuple(self._call(architecture) for _ in range(self.repetitions))

    def identity_record(self) -> tuple[object, ...]:
        """What stands for it in a `formulation.fingerprint`: all but the memory, and the identity in the place of the function."""
        function = self.function if self.identity is None else self.identity
        return self.name, self.unit, function, self.repetitions, self.confidence

    @cached_property
    def _function_identity(self) -> str | None:
        """What rows of the file are known by; None, with a warning, where there is nothing."""
        try:
            return fingerprint(self.function) if self.identity is None else self.identity
        except NoIdentity as error:
            warnings.warn(
                f"{self.name} is called again in every run, whatever {self.file} holds: {error}; or give the black box an identity",
                stacklevel=2,
            )
            return None

    @property
    def _remembered(self) -> dict[Architecture, tuple[float, ...]]:
        """The calls of this very function that the file holds; ValueError if a row cannot be read."""
        assert self._rows is not None
        own = self._function_identity  # before the first call, which may change what the function holds
        remembered = {}
        for number, row in enumerate(self._rows.rows, start=1):
            if own is not None and row.get("identity") == own:
                try:
                    call = read_record(_Call, row, "row")
                    remembered[call.design] = tuple(map(self._checked, call.values))
                except ValueError as error:
                    raise ValueError(
                        f"row {number} of {self.file} is not a call of {self.name} ({error}); mend or move it"
                    ) from None
        return remembered

    @cached_property
    def _rows(self) -> RowFile | None:
        return None if self.file is None else RowFile(self.file)

    def _call(self, architecture: Architecture) -> float:
        try:
            value = float(self.function(architecture))
        except Exception as error:  # whatever the user's function does wrong
            kind = type(error).__name__
            raise ValueError(f"{self.name} failed for the design {architecture} ({kind}: {error}); expected a number") from error
        if not 0 < value < math.inf:
            raise ValueError(f"{self.name} of the design {architecture} is {value!r}; expected a finite number above 0 {self.unit}")
        return value

    def _checked(self, value: float) -> float:
        """A stored value; ValueError for one that no call can have given."""
        if not 0 < value < math.inf:
            raise ValueError(f"a value is {value!r}; expected a finite number above 0 {self.unit}")
        return float(value)

    def table(
        self,
        space: SearchSpace,
        designs: int = 60,
        seed: int = 0,
        workload: Workload | None = None,
        features: Sequence[str] = BODY_FEATURES,
    ) -> LatencyTable:
        """A table for exact solvers, fitted to so many designs drawn uniformly from a space; `Latency(table)` is its cost.

        Each call counts as a round, so that the table's error (cross-validated) holds for one call of one more design. Raises
        ValueError if the space has not so many designs, or fewer than 20 are asked for.
        """
        if space.size < designs:
            raise ValueError(f"the space has {space.size} designs; expected at least {designs} to fit a table to")
        draw, chosen = np.random.default_rng(seed), dict[Architecture, None]()
        while len(chosen) < designs:
            chosen |= dict.fromkeys(map(space.decode, space.sample(draw, designs)))
        rows = [MeasuredNetwork(design, self.calls(design)) for design in list(chosen)[:designs]]
        fitted = fit_table(self.name, "measured", workload or Workload(), rows, features, {"runtime": "a function of the user's"})
        return replace(fitted, quantity="cost", unit=self.unit, validated=Validated.of_space(space))
