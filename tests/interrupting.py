"""Ctrl-C at a moment of a search, whatever the clock says."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from solvers.base import Run

_UNDERWAY_S = 0.3
"""From when an engine is given its work until Ctrl-C: enough for it to begin, and nothing that is tried here ends so soon."""


def interrupt_search(monkeypatch: pytest.MonkeyPatch, at_look: int = 20) -> None:
    """Press Ctrl-C once: at the n-th look at the clock, or when an engine that looks at none is at work."""
    sent = threading.Event()
    looks = 0
    out_of_time = Run.out_of_time.fget  # type: ignore[attr-defined]

    def press() -> None:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)

    def look(run: Run) -> bool:
        nonlocal looks
        looks += 1
        if looks == at_look:
            press()
        return out_of_time(run)

    def hand_over(run: Run, name: str, value: Any) -> None:
        object.__setattr__(run, name, value)
        if name == "on_interrupt" and value is not None:
            threading.Timer(_UNDERWAY_S, press).start()

    monkeypatch.setattr(Run, "out_of_time", property(look))
    monkeypatch.setattr(Run, "__setattr__", hand_over)
