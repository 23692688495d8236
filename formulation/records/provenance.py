"""Where results come from, and what they took: command, seed, versions, machine, peak memory."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


@functools.cache
def version_of(distribution: str) -> str | None:
    """The version of an installed distribution; None if it isn't installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance(seed: int, packages: Iterable[str] = ("numpy", "scipy")) -> dict[str, Any]:
    """Where results come from: command, seed, versions, machine and the entropy's defaults (`DEFAULTS_VERSION`), ready for JSON.

    The record names neither the host nor its folders: of an absolute path on the command line only the last part is kept.

    Args:
        seed: of all random choices.
        packages: distributions whose versions matter beside Python's and merino's own; one that is not installed is left out.
    """
    known = {name: version_of(name) for name in dict.fromkeys(("merino", *packages))}
    versions = {"python": platform.python_version(), **{name: version for name, version in known.items() if version is not None}}
    parts = (platform.system(), platform.machine(), platform.processor(), f"{os.cpu_count()} CPUs")
    return {
        "command": _command(),
        "seed": seed,
        "versions": versions,
        "entropy_defaults": DEFAULTS_VERSION,
        "machine": ", ".join(dict.fromkeys(part for part in parts if part)),
    }


def _command() -> str:
    """The command line as typed: `python -m studies.x flags`, `merino x flags`, or `python script.py flags`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    script = Path(sys.argv[0]).name
    if spec is not None:
        start = ["python", "-m", spec.name.removesuffix(".__main__")]
    elif script.endswith(".py") or not script[:1].isalnum():  # a file, or python -c
        start = ["python", script]
    else:  # a command that an installation made, such as merino or pytest
        start = [script]
    return shlex.join([*start, *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return flag + equals + (Path(value).name if Path(value).is_absolute() else value)


def restart_peak_memory() -> None:
    """Start `peak_memory_bytes` over. Linux only; elsewhere nothing happens."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """The most memory this process has held at a time since `restart_peak_memory`, engines' child processes left out.

    None if the system does not tell (anything but Linux).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else 1024 * int(line.split()[1])


SAYS_NOTHING = "says nothing"
"""Key in a field's metadata: the value of a field that a class got later by which all is as it was before, see `fingerprint`."""

DEFAULTS_VERSION = 1
"""Of the entropy's default ρ, α, β and mean width, which are ours: results name it, and a change of a default raises it.

1: ρ = 0.01, α = (0.6, 0.4), β = 1/16, the network's mean (`formulation.EffectiveEntropy`).
"""
