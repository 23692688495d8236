"""Cost model: latency of a network on a device, predicted by a table of prices that was fitted to measurements.

What a table is and what it predicts lives here; how tables are stored in device files is `hardware_models.device`, how they are
fitted `hardware_models.fit`, how networks are measured `hardware_models.profile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from formulation import Architecture, Block, SearchSpace, Separable
from formulation.architecture import HEAD_SIZE, JOINTS, Setting
from formulation.family import family_of
from formulation.layer import layer_of
from formulation.records.provenance import SAYS_NOTHING
from formulation.records.reading import chosen
from hardware_models.condition import ConditionalPrice
from hardware_models.fit import LARGE_ERROR, FitError, fit_error, nonnegative_fit, selecting_fit
from hardware_models.workload import BODY_FEATURES, FEATURES, LAYER_FEATURES, Feature, Workload, feature_matrix


@dataclass(frozen=True)
class Validated:
    """What the error of a table was measured on; a prediction for anything else is an extrapolation.

    What may be left out is, unless stated, what a layer of the paper has.

    Attributes:
        widths: least and greatest E.
        ffn_widths: least and greatest F.
        layers: least and greatest Σ L.
        embedding_widths: each value seen, or, where the embedding is as wide as the blocks, empty: any; the work around the blocks
            is part of the price of a pass.
        vocabularies: each value seen, for the same reason.
        shared: True for networks whose layers share weights, False for networks whose layers do not, or both.
        families: each name seen (`formulation.family`).
        heads: least and greatest h; None: in every network h·d = E.
        kv_heads: least and greatest k; None: in every network k = h.
        head_sizes: each d seen.
        value_head_sizes: each head size of values seen; empty: that of queries and keys.
        gated: True for feed-forward networks with a gate, False for those without, or both.
        bits: each number of bits that blocks were given as their own; empty: their weights are as the table says.
        joints: what joined unequal widths, each of "linear" and "pad" that was seen.

    Raises:
        ValueError: for a range whose ends are not in order, and where nothing was seen.
    """

    widths: tuple[int, int]
    ffn_widths: tuple[int, int]
    layers: tuple[int, int]
    embedding_widths: tuple[int, ...]
    vocabularies: tuple[int, ...]
    shared: tuple[bool, ...]
    families: tuple[str, ...] = field(default=("merino",), metadata={SAYS_NOTHING: ("merino",)})
    heads: tuple[int, int] | None = None
    kv_heads: tuple[int, int] | None = None
    head_sizes: tuple[int, ...] = field(default=(HEAD_SIZE,), metadata={SAYS_NOTHING: (HEAD_SIZE,)})
    value_head_sizes: tuple[int, ...] = field(default=(), metadata={SAYS_NOTHING: ()})
    gated: tuple[bool, ...] = field(default=(False,), metadata={SAYS_NOTHING: (False,)})
    bits: tuple[float, ...] = field(default=(), metadata={SAYS_NOTHING: ()})
    joints: tuple[str, ...] = field(default=JOINTS[:1], metadata={SAYS_NOTHING: JOINTS[:1]})

    def __post_init__(self) -> None:
        for name, least in (("widths", 1), ("ffn_widths", 1), ("layers", 0), ("heads", 1), ("kv_heads", 1)):
            ends = getattr(self, name)
            if ends is not None and not least <= ends[0] <= ends[1]:
                raise ValueError(f"{name} are {list(ends)}; expected the least and the greatest, {least} or more")
        for name, fewest in (("embedding_widths", 0), ("vocabularies", 1), ("head_sizes", 1), ("value_head_sizes", 0), ("bits", 0)):
            values = getattr(self, name)
            if len(values) < fewest or min(values, default=1) <= 0:
                raise ValueError(f"{name} are {list(values)}; expected numbers above 0" + ", at least one" * fewest)
        for name in ("shared", "gated"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; expected true, false or both")
        if not self.families:
            raise ValueError("families is empty; expected the name of one or more")
        for family in self.families:
            family_of(family)
        for joints in self.joints:
            chosen("joints", joints, dict.fromkeys(JOINTS))

    @classmethod
    def of(cls, designs: Iterable[Architecture]) -> Validated:
        """What some designs span."""
        designs = list(designs)
        blocks = [(block, design) for design in designs for block in design.blocks]
        return cls._spanned([sum(design.depths) for design in designs], blocks, designs)

    @classmethod
    def of_space(cls, space: SearchSpace) -> Validated:
        """What the designs of a space span, as far as its menus tell."""
        blocks: list[tuple[Block, Setting]] = [(block, space) for menu in dict.fromkeys(space.menus) for block in menu.items]
        least, most = (sum(menu.all_depths[end] for menu in space.menus) for end in (0, -1))
        return cls._spanned([max(least, 1), most], blocks, [space])

    @classmethod
    def _spanned(cls, layers: Sequence[int], placed: Sequence[tuple[Block, Setting]], settings: Sequence[Setting]) -> Validated:
        full = [(block, setting) for block, setting in placed if block.depth]
        blocks = [block for block, _ in full]
        own_width = all(not family_of(setting.family).joints for setting in settings)
        return cls(
            _ends(block.width for block, _ in placed),
            _ends(block.ffn_width for block in blocks),
            _ends(layers),
            () if own_width else tuple(sorted({setting.embedding_width for setting in settings})),
            tuple(sorted({setting.vocabulary for setting in settings})),
            tuple(sorted({_shares(block, setting) for block, setting in full})),
            tuple(sorted({setting.family for setting in settings})),
            None if all(map(_fills, blocks)) else _ends(block.heads for block in blocks),
            None if all(map(_each_its_own, blocks)) else _ends(block.kv_heads for block in blocks),
            tuple(sorted({block.head_size for block in blocks})),
            () if all(map(_as_keys, blocks)) else tuple(sorted({block.value_head_size for block in blocks})),
            tuple(sorted({layer_of(block, setting).gated for block, setting in full})),
            tuple(sorted({block.bits for block in blocks if block.bits is not None})),
            tuple(sorted({setting.joints for setting in settings})),
        )

    def leaves_out(self, setting: Setting, blocks: Iterable[Block], layers: Iterable[int]) -> str:
        """What of networks with these blocks and total depths lies outside, in words; empty where nothing does."""
        return "; ".join(dict.fromkeys(self._outside(setting, list(blocks), list(layers))))

    def _outside(self, setting: Setting, blocks: Sequence[Block], layers: Sequence[int]) -> Iterator[str]:
        full = [block for block in blocks if block.depth]
        for name, numbers, ends in (
            ("width", [block.width for block in blocks], self.widths),
            ("ffn_width", [block.ffn_width for block in full], self.ffn_widths),
            ("total depth", layers, self.layers),
            ("heads", [block.heads for block in full], self.heads),
            ("kv_heads", [block.kv_heads for block in full], self.kv_heads),
        ):
            least, most = ends or (1, math.inf)  # without ends the next loop asks for a relation instead
            beyond = [value for value in (min(numbers, default=least), max(numbers, default=most)) if not least <= value <= most]
            if ends and beyond:
                yield f"{name} {' and '.join(f'{value:,}' for value in dict.fromkeys(beyond))} (validated {least:,} to {most:,})"
        for stated, follows, sentence in (
            (self.heads, _fills, "heads times head size other than the width (none were measured)"),
            (self.kv_heads, _each_its_own, "query heads that share key/value heads (none were measured)"),
            (self.value_head_sizes, _as_keys, "values with a head size of their own (none were measured)"),
        ):
            if not stated and not all(map(follows, full)):
                yield sentence
        values: tuple[tuple[str, Iterable[Any], tuple[Any, ...]], ...] = (
            ("embedding width", (setting.embedding_width,), self.embedding_widths or (setting.embedding_width,)),
            ("vocabulary", (setting.vocabulary,), self.vocabularies),
            ("family", (setting.family,), self.families),
            ("joints", (setting.joints,), self.joints),
            ("head size", (block.head_size for block in full), self.head_sizes),
            ("value head size", (block.value_head_size for block in full if self.value_head_sizes), self.value_head_sizes),
            ("bits", (block.bits for block in full if block.bits is not None), self.bits),
        )
        for name, seen, known in values:
            for value in dict.fromkeys(seen):
                if value not in known:
                    yield f"{name} {_shown(value)} (validated {', '.join(map(_shown, known)) or 'none of their own'})"
        for shared in dict.fromkeys(_shares(block, setting) for block in full):
            if shared not in self.shared:
                yield f"layers that {'share' if shared else 'do not share'} weights (none were measured)"
        for gated in dict.fromkeys(layer_of(block, setting).gated for block in full):
            if gated not in self.gated:
                yield f"feed-forward networks {'with' if gated else 'without'} a gate (none were measured)"


def _ends(values: Iterable[int]) -> tuple[int, int]:
    values = list(values)
    return min(values), max(values)


def _fills(block: Block) -> bool:
    return block.heads * block.head_size == block.width


def _each_its_own(block: Block) -> bool:
    return block.kv_heads == block.heads


def _as_keys(block: Block) -> bool:
    return block.value_head_size == block.head_size


def _shares(block: Block, setting: Setting) -> bool:
    return setting.shared if block.shared is None else block.shared


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


@dataclass(frozen=True)
class LatencyTable:
    """Prices of kinds of work on one device, in one runtime and precision, for one workload.

    Attributes:
        device: name of the device.
        name: of the table among those of the device.
        workload: the pass that is predicted.
        prices: (feature, ms per unit) of `FEATURES`, each 0 or more where it is a latency.
        validated: what the error was measured on.
        error: out-of-sample error of the prediction of whole networks, None if nobody measured it.
        rows: the measured networks behind it, where they are kept.
        how: how it was measured: runtime, precision, clocks, date, versions, assumptions.
        quantity: what is predicted: a latency, or something else such as an energy (`hardware_models.black_box`).
        unit: of what is predicted.
        origin: the name or the path that the device was read by.
        conditional: further prices, each where a condition on the widths of a block holds.
    """

    device: str
    name: str
    workload: Workload
    prices: tuple[tuple[str, float], ...]
    validated: Validated
    error: FitError | None = None
    rows: tuple[MeasuredNetwork, ...] = field(default=(), repr=False, compare=False)
    how: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    quantity: str = "latency"
    unit: str = "ms"
    origin: str = field(default="", repr=False, compare=False)
    conditional: tuple[ConditionalPrice, ...] = field(default=(), metadata={SAYS_NOTHING: ()})

    def predict(self, architecture: Architecture) -> float:
        """Latency of one pass [ms], whether or not the design is one that the table was validated on."""
        return Latency(self, extrapolate=True)(architecture)

    def leaves_out(self, architecture: Architecture) -> str:
        """What of a design makes its prediction an extrapolation; empty where nothing does."""
        return self.validated.leaves_out(architecture, architecture.blocks, [sum(architecture.depths)])

    @property
    def doubt(self) -> str:
        """A sentence on why the table is not to be relied on: its error is large. Empty where it is not."""
        if self.error is None or not self.error.large:
            return ""
        return (
            f"the table {self.name} of {self.device} is doubtful: its mean error on networks that it was not fitted to is "
            f"{100 * self.error.mape:.1f} %, more than {100 * LARGE_ERROR:g} %; measure again, on a machine that does nothing else"
        )

    def margin(self, confidence: float) -> float:
        """The ratio measured / predicted that is kept with probability `confidence`, by the error of the table.

        Between the quantiles that the table states it is interpolated, linearly in the normal quantile. ValueError for a
        confidence outside them: nothing is known of rarer errors.
        """
        if self.error is None:
            raise ValueError(
                f"the table {self.name} of {self.device} states no error, so nothing holds with a confidence; "
                "measure the device with python -m hardware_models.profile"
            )
        known = np.array([probability for probability, _ in self.error.quantiles])
        is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
        if not is_number or not known[0] <= confidence <= known[-1]:
            raise ValueError(
                f"the confidence is {confidence!r}; the table {self.name} of {self.device} states its error for "
                f"{known[0]:g} to {known[-1]:g}"
            )
        normal = [NormalDist().inv_cdf(probability) for probability in known]
        ratios = [ratio for _, ratio in self.error.quantiles]
        return float(np.interp(NormalDist().inv_cdf(confidence), normal, ratios))


@dataclass(frozen=True)
class Latency(Separable):
    """Latency of one pass [ms], as a table predicts it: Σ price·work over the kinds of work in `FEATURES`.

    Where a table has conditional prices, those whose condition holds of a block are added to the prices of its work, and those
    whose condition holds of the first block to the prices of the work around the blocks: still a sum over blocks.

    With `confidence` p, the latency that a measurement stays below with probability p: the prediction times the p-quantile of
    measured / predicted over networks and rounds that the fit had not seen, cross-validated. As in conformal prediction (Vovk
    et al. 2005) no distribution is assumed, but there is no guarantee: folds share rows, rounds of one network depend on each
    other, and a network that was optimised for a small prediction is more likely to be underestimated.
    `studies.latency_check` measures it.

    Attributes:
        table: a `LatencyTable`, of a device file (`hardware_models.device.read_device`).
        confidence: a probability that the table's error covers, None: the prediction itself.
        extrapolate: True: predict what the table was not validated on as well; the name then says so.

    Raises:
        ValueError: for a design or a space beyond what was validated, unless `extrapolate`.
    """

    table: LatencyTable
    confidence: float | None = None
    extrapolate: bool = False

    def __post_init__(self) -> None:
        _ = self._factor  # a confidence that the table cannot give is refused here

    @property
    def name(self) -> str:  # type: ignore[override]
        """latency@device:table, marked where it extrapolates, holds with a confidence, or its table is doubtful."""
        table, extrapolating = self.table, " (extrapolating)" if self.extrapolate else ""
        confident = "" if self.confidence is None else f" at {100 * self.confidence:g} %"
        doubtful = f" (doubtful: mean error {100 * table.error.mape:.0f} %)" if table.error is not None and table.doubt else ""
        return f"{table.quantity}@{table.device}:{table.name}{confident}{extrapolating}{doubtful}"

    @property
    def unit(self) -> str:  # type: ignore[override]
        """ms, unless the table says otherwise."""
        return self.table.unit

    @property
    def doubt(self) -> str:
        """Why its table is not to be relied on; empty unless its error is large."""
        return f"the latencies of a table: {self.table.doubt}" if self.table.doubt else ""

    def extrapolates(self, architecture: Architecture) -> str:
        """See `Quantity.extrapolates`."""
        return self.table.leaves_out(architecture)

    @property
    def assumes(self) -> str:
        """The pass that was measured, and its precision."""
        precision = self.table.how.get("precision", "not stated")
        return f"{self.table.workload}, {'precision not stated' if precision == 'not stated' else precision}"

    @property
    def least(self) -> float:  # type: ignore[override]
        """0, unless the table holds something else than a latency."""
        return 0.0 if self.table.quantity == "latency" else -math.inf

    def at_confidence(self, confidence: float) -> Latency:
        """See `Quantity.at_confidence`."""
        return replace(self, confidence=confidence)

    @property
    def _factor(self) -> float:
        return 1.0 if self.confidence is None else self.table.margin(self.confidence)

    @property
    def positional(self) -> bool:
        """Whether the widths of the first block decide what work around the blocks costs."""
        return any(FEATURES[each.work].around for each in self.table.conditional)

    def block(self, block: Block, setting: Setting) -> float:
        def term(feature: Feature) -> float:
            return feature.block(block, setting, self.table.workload)

        return self._price(term) + self._conditional_price(term, block, setting)

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        value = self.block(block, setting)
        if position == 0:
            value += self._conditional_price(lambda feature: feature.fixed(setting, self.table.workload), block, setting)
        return value

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self._price(lambda feature: feature.joint(left, right, setting, self.table.workload))

    def fixed(self, setting: Setting) -> float:
        return self._price(lambda feature: feature.fixed(setting, self.table.workload))

    def _price(self, work: Callable[[Feature], float]) -> float:
        return self._factor * sum(price * work(FEATURES[name]) for name, price in self.table.prices)

    def _conditional_price(self, work: Callable[[Feature], float], block: Block, setting: Setting) -> float:
        holding = (each for each in self.table.conditional if each.where.holds(block, setting))
        return self._factor * sum(each.price * work(FEATURES[each.work]) for each in holding)

    def check(self, space: SearchSpace) -> None:
        """ValueError if the space holds widths, depths or surroundings that the table was not validated on."""
        items = [block for menu in dict.fromkeys(space.menus) for block in menu.items]
        self._refuse("the space has", self.table.validated.leaves_out(space, items, Validated.of_space(space).layers))
        self._refuse_first(space.menus[0].items)

    def _refuse(self, who: str, outside: str) -> None:
        if outside and not self.extrapolate:
            raise ValueError(
                f"{self.name} was not validated for this: {who} {outside}; stay within, or ask for an extrapolation "
                "(extrapolate=True, on the command line --extrapolate)"
            )

    def __call__(self, architecture: Architecture) -> float:
        self._refuse("the design has", self.table.leaves_out(architecture))
        self._refuse_first(architecture.blocks[:1])
        return super().__call__(architecture)

    def _refuse_first(self, blocks: Iterable[Block]) -> None:
        """ValueError if a first block has no layers, whose widths should decide what the work around the blocks costs."""
        if self.positional and not all(block.depth for block in blocks):
            raise ValueError(
                f"{self.name} prices the work around the blocks by the widths of the first one, which is left out (depth 0); "
                "give the first block a layer"
            )


def fit_table(
    device: str,
    name: str,
    workload: Workload,
    rows: Sequence[MeasuredNetwork],
    features: Sequence[str] = BODY_FEATURES,
    how: dict[str, Any] | None = None,
    folds: int = 10,
    choices: Sequence[str] = LAYER_FEATURES,
) -> LatencyTable:
    """The table whose prices come nearest to measured networks: least squares of the relative error, no price below 0.

    The work in `features` is priced, and of that in `choices` what predictions of unseen networks are worse without.

    Its error is that of networks and rounds that the fit has not seen: every round of a network is predicted by prices fitted to
    other networks (in `folds` groups) and, where there are several, to other rounds, so that it holds for a run on another
    occasion as far as the rounds tell. Raises ValueError for fewer networks than twice the folds, or for two rows of one network.
    """
    designs = [row.design for row in rows]
    if len(set(designs)) < len(designs):
        twice = next(design for number, design in enumerate(designs) if design in designs[:number])
        raise ValueError(f"the network {twice} was measured twice; expected one row a network, with all its rounds")
    if len(designs) < 2 * folds:
        raise ValueError(
            f"there are {len(designs)} measured networks; expected at least {2 * folds} to fit a table and know its error"
        )
    names = (*features, *(name for name in choices if name not in features))
    work = feature_matrix(designs, workload, names)
    used = [number for number in range(len(names)) if work[:, number].any()]
    fit = selecting_fit(sum(number < len(features) for number in used))
    work, names = work[:, used], tuple(names[number] for number in used)
    prices = fit(work, np.array([row.mean_ms for row in rows]))
    predicted, measured = unseen_rounds(work, rows, folds, fit=fit)
    return LatencyTable(
        device,
        name,
        workload,
        tuple((feature, float(price)) for feature, price in zip(names, prices, strict=True) if price > 0),
        Validated.of(designs),
        replace(fit_error(predicted, measured), networks=len(rows)),
        tuple(rows),
        how or {},
    )


def unseen_rounds(
    work: np.ndarray,
    rows: Sequence[MeasuredNetwork],
    folds: int,
    seed: int = 0,
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray] = nonnegative_fit,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured latency of every round of every network, each by a `fit` to other networks and other rounds.

    Networks need not have as many rounds; of one that has a single round, or lacks this one, all rounds count as others.
    """
    fold = np.random.default_rng(seed).permutation(len(rows)) % folds
    predicted, measured = [], []
    for k in range(max(len(row.rounds_ms) for row in rows)):
        has = np.array([len(row.rounds_ms) > k for row in rows])
        others = np.array([fmean(row.rounds_ms[:k] + row.rounds_ms[k + 1 :] or row.rounds_ms) for row in rows])
        for held_out in range(folds):
            prices = fit(work[fold != held_out], others[fold != held_out])
            predicted.append(work[(fold == held_out) & has] @ prices)
            measured.append(
                np.array([row.rounds_ms[k] for row, own in zip(rows, fold, strict=True) if own == held_out and row.rounds_ms[k:]])
            )
    return np.concatenate(predicted), np.concatenate(measured)


@dataclass(frozen=True)
class MeasuredNetwork:
    """The latency of one network, measured in one or several rounds.

    Attributes:
        design: the network.
        rounds_ms: a latency for each round [ms]: a trimmed mean of repeated passes; rounds lie apart in time, so that what the
            machine does otherwise differs between them.
        std_ms: standard deviation of single passes within a round, of all rounds together [ms].
        passes: timed passes of all rounds together.

    Raises:
        ValueError: for a latency that is not positive and finite.
    """

    design: Architecture
    rounds_ms: tuple[float, ...]
    std_ms: float = 0.0
    passes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds_ms", tuple(self.rounds_ms))
        if not self.rounds_ms:
            raise ValueError(f"the network {self.design} was measured in no round; expected at least one latency")
        for value in self.rounds_ms:
            if not 0 < value < math.inf:
                raise ValueError(f"a latency of the network {self.design} is {value!r} ms; expected a positive number")
        if not 0 <= self.std_ms < math.inf:
            raise ValueError(f"the standard deviation of the network {self.design} is {self.std_ms!r} ms; expected 0 or more")

    @property
    def mean_ms(self) -> float:
        """Mean of the rounds [ms]."""
        return fmean(self.rounds_ms)
