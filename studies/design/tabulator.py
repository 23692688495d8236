"""A black-box budget of the everyday command: measured on some designs, tabulated for the exact solvers, held to at the end."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from formulation import Architecture, Quantity, SearchSpace, SpaceUnion
from formulation.command.words import number_text
from hardware_models import BlackBox, Device, Latency, read_device, write_device


@dataclass
class Tabulator:
    """Puts a table in the place of each black box, fitted to `designs` designs of the space and kept in `folder`.

    Attributes:
        designs: to measure, 0: none, and a black box is refused with ValueError.
    """

    space: SearchSpace | SpaceUnion
    designs: int
    folder: Path
    _boxes: list[tuple[BlackBox, Latency]] = field(default_factory=list)

    def __call__(self, quantity: Quantity) -> Quantity:
        if not self.designs:
            raise ValueError(
                f"{quantity.name} is a black box, which no exact solver can search; add --measure 60 to measure it on 60 "
                "designs and search a table fitted to them, or let heuristics call it: python -m studies.compare_solvers"
            )
        box = quantity if isinstance(quantity, BlackBox) else BlackBox(quantity.name, quantity.unit, quantity, repetitions=1)
        print(f"measuring {box.name} on {self.designs} designs", file=sys.stderr, flush=True)
        if isinstance(self.space, SpaceUnion):
            raise ValueError(
                f"--measure samples one space; there are {len(self.space.parts)}: decide what is around the blocks first"
            )
        fitted = box.table(self.space, self.designs)
        name = re.sub("[^a-z0-9]+", "-", box.name.lower()).strip("-") or "black-box"
        write_device(
            Device(name, (fitted,), f"{box.name}, tabulated", "python -m studies.design --measure"), self.folder / f"{name}.json"
        )
        latency = Latency(read_device(str(self.folder / f"{name}.json")).table())
        self._boxes.append((box, latency))
        return latency

    def check_text(self, design: Architecture) -> str:
        """What the black boxes really say of a design, beside their tables; empty if there are none."""
        lines = []
        for box, latency in self._boxes:
            error = latency.table.error
            assert error is not None
            lines.append(
                f"{box.name}: {number_text(float(f'{box(design):.4g}'))} {box.unit} when called for this design, "
                f"{number_text(float(f'{latency(design):.4g}'))} by its table (mean error on others {100 * error.mape:.1f} %)"
                + (f"; {latency.table.doubt}" if latency.table.doubt else "")
            )
        return "\n".join(lines)
