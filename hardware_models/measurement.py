"""Networks whose latency was really measured: what a device file stores as rows, and what tables are fitted to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import fmean

from formulation import Architecture, Block

_BLOCK = re.compile(r"([0-9]{1,9})/([0-9]{1,9})x([0-9]{1,9})")


def read_blocks(text: str) -> tuple[Block, ...]:
    """The blocks that `str` of an architecture writes, width/ffn_width x depth: "512/512x2 640/960x1"; ValueError for any other."""
    matches = [_BLOCK.fullmatch(part) for part in text.split()]
    if not matches or None in matches:
        raise ValueError(
            f"the blocks are {text[:100]!r}; expected width/ffn_widthxdepth, one after another, such as '512/512x2 640/960x1'"
        )
    return tuple(Block(*map(int, match.groups())) for match in matches if match)


@dataclass(frozen=True)
class MeasuredNetwork:
    """The latency of one network, measured in one or several rounds.

    design     the network
    rounds_ms  a latency for each round [ms]: a trimmed mean of repeated passes; rounds lie apart in time, so that what the
               machine does otherwise differs between them
    std_ms     standard deviation of single passes within a round, of all rounds together [ms]
    passes     timed passes of all rounds together

    Raises ValueError for a latency that is not positive and finite.
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
