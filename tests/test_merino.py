"""The public face: `from merino import …`, and one clear sentence where a user's own file hides one of our packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import formulation
import hardware_models
import merino
import solvers

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "import sys\nfrom studies.front_door import main\nsys.exit(main())\n"
"""What an installation makes of the command `merino`."""
DESIGN = ("design", "--budget", "flops=60e9", "--alternatives", "0", "--steps", "0")


def test_merino_has_all_that_is_public() -> None:
    names = [*formulation.__all__, *hardware_models.__all__, *solvers.__all__]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert merino.__all__ == names
    for package in (formulation, hardware_models, solvers):
        assert all(getattr(merino, name) is getattr(package, name) for name in package.__all__)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a user's folder, which it looks in first, with this house behind it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


def started(folder: Path, way: str) -> subprocess.CompletedProcess[str]:
    if way == "merino design":
        (folder / "started").write_text(SCRIPT)
        return run(folder, "started", *DESIGN)
    return run(folder, "-m", "studies.design", *DESIGN[1:])


@pytest.mark.parametrize("way", ["merino design", "python -m studies.design"])
@pytest.mark.parametrize("name", ["solvers", "formulation", "hardware_models"])
def test_a_file_that_hides_a_package_ends_a_command_in_one_sentence(way: str, name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("mine = 1\n")
    ended = started(tmp_path, way)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / f"{name}.py") in line
    assert f"my_{name}.py" in line


@pytest.mark.parametrize("name", ["solvers", "formulation"])
def test_a_file_that_hides_a_package_is_named_by_merino(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("mine = 1\n")
    ended = run(tmp_path, "-c", "from merino import solve")
    assert ended.returncode == 1
    assert f"ImportError: {tmp_path / name}.py is imported in place of merino's own package {name}; rename it" in ended.stderr


def test_a_folder_hides_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers" / "__init__.py").touch()
    ended = run(tmp_path, "-c", "from merino import solve")
    assert f"{tmp_path / 'solvers' / '__init__.py'} is imported in place of" in ended.stderr


def test_other_files_of_a_user_are_let_alone(tmp_path: Path) -> None:
    (tmp_path / "my_solvers.py").write_text("mine = 1\n")
    (tmp_path / "studies").mkdir()  # without an __init__.py it adds to ours and hides nothing
    ended = run(tmp_path, "-c", "from merino import Flops, solve; import my_solvers; print(solve.__module__, Flops.__module__)")
    assert ended.stdout.split() == ["solvers.base", "hardware_models.flops"], ended.stderr
