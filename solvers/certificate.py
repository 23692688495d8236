"""What a proof rests on, as data that `python -m solvers.check` compares with exact arithmetic and without the solvers' code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Certificate(Protocol):
    """What a solver leaves behind of its proof."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `python -m solvers.check` reads; numbers are the binary ones that were computed with."""


@dataclass(frozen=True)
class Uncheckable:
    """The certificate of a proof that nobody can check without redoing it.

    Attributes:
        why: what it rests on, such as a branch-and-bound tree of an engine.
    """

    why: str

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        return {"kind": "not checkable", "why": self.why}
