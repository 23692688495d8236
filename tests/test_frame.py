"""The frame around the code: who imports whom, what loads torch, and that nothing declared in two places has drifted apart."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from merino_packages import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MAY_IMPORT: dict[str, set[str]] = {
    "formulation": set(),
    "hardware_models": {"formulation"},
    "solvers": {"formulation"},
    "merino_net": {"formulation"},
    "studies": {"formulation", "hardware_models", "solvers", "merino_net"},
    "merino": {"formulation", "hardware_models", "solvers"},
}
"""Package -> the other packages of the house that it may import. A new package gets its line here."""

MEASURES = {f"hardware_models/{name}.py" for name in ("artefacts", "engines", "profile")}
"""What measures real networks, and so imports them too; nothing else of its package may import it."""

HOUSE = {*MAY_IMPORT, "tests"}

HEAVY = {
    *("torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets"),
    *("pyomo", "pymoo", "moocore", "highspy", "pyscipopt", "ortools", "cbcbox"),
    *("scipy", "networkx", "matplotlib", "sklearn", "onnx", "onnxruntime", "openvino", "nncf"),
}
"""What takes long to load, or is not part of every installation: imported where it runs."""

LIGHT = (
    "merino",
    "formulation",
    "formulation.records.files",
    "hardware_models",
    "hardware_models.profile",
    "solvers",
    "solvers.names",
    "merino_net",
    *(f"merino_net.{name}" for name in ("train", "evaluate", "generate", "quantize", "export")),
    "studies.front_door",
    "studies.completion",
    *sorted(f"studies.{file.parent.name}.study" for file in (ROOT / "studies").glob("*/study.py")),
)
"""What loads nothing of that when it is imported: packages, and whatever a command needs to show its help."""

NETWORK_MAY_IMPORT = {
    f"formulation.{module}"
    for module in ("architecture", "family", "layer", "model_file", "published", "fingerprint", "records", "command")
}
"""What the network knows of the house: designs as data, and what every command does around its work."""

STAND_ALONE = {
    "hardware_models/profile_standalone.py",
    "formulation/command/keeper.py",
    *(f"merino_net/network/{name}.py" for name in ("configuration_merino", "modeling_merino", "quantized_weights")),
    *(file.relative_to(ROOT).as_posix() for file in (ROOT / "merino_net" / "shipping" / "clients").glob("*.py")),
    "solvers/check.py",
    *(file.relative_to(ROOT).as_posix() for file in (ROOT / "solvers" / "programs").glob("*_process.py")),
    *(file.relative_to(ROOT).as_posix() for file in (ROOT / "merino_net" / "shipping" / "clients").glob("*.py")),
}
"""Scripts that import nothing of the house, and so may keep copies of what stands in it."""

OF_EVERY_COMMAND = {"main", "command_line"}
"""What every command has."""


def imported_packages(source: str) -> set[str]:
    """Top-level names of all absolute imports in `source`, wherever they stand: in a function, under TYPE_CHECKING, in a try."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def public_names(source: str) -> set[str]:
    """What a file defines at its top level: functions, classes, and names that are assigned to."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Canonical name -> requirement; an extra that names merino itself is left out."""
    parsed = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}
    parsed.pop(canonicalize_name(PYPROJECT["project"]["name"]), None)
    return parsed


def test_imported_packages_finds_every_form() -> None:
    source = """
import json, solvers.base as base
from . import own
def late():
    from studies.budget_flags import read_budgets
if TYPE_CHECKING:
    import formulation
"""
    assert imported_packages(source) == {"json", "solvers", "studies", "formulation"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    files = source_files(package)
    assert files, f"no Python file in {package}"
    forbidden = HOUSE - {package} - MAY_IMPORT[package]
    found = {file.relative_to(ROOT).as_posix(): imported_packages(file.read_text(encoding="utf-8")) & forbidden for file in files}
    found = {file: names - ({"merino_net"} if file in MEASURES else set()) for file, names in found.items()}
    assert {file: names for file, names in found.items() if names} == {}


def test_public_names_of_a_file() -> None:
    source = """
import os
WIDTH, (_HIDDEN, HEIGHT) = 1, (2, 3)
LIMIT: int = 4
class Design:
    inner = 5
def price(): local = 6
"""
    assert public_names(source) == {"WIDTH", "HEIGHT", "LIMIT", "Design", "price"}


def test_a_public_name_is_defined_once() -> None:
    files = [*ROOT.glob("*.py"), *(file for package in PACKAGES for file in source_files(package))]
    places: dict[str, list[str]] = {}
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if path not in STAND_ALONE:
            for name in public_names(file.read_text(encoding="utf-8")) - OF_EVERY_COMMAND:
                places.setdefault(name, []).append(path)
    assert len(places) > 1000
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_network_knows_designs_and_nothing_of_problems() -> None:
    for file in source_files("merino_net"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "formulation":
                assert ".".join(node.module.split(".")[:2]) in NETWORK_MAY_IMPORT, f"{file.name} imports {node.module}"


def test_every_package_is_declared() -> None:
    folders = {".".join(file.parent.relative_to(ROOT).parts) for package in MAY_IMPORT for file in source_files(package)}
    find = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    assert set(find_packages(str(ROOT), find["exclude"], find["include"])) == folders
    assert set(PYPROJECT["tool"]["mypy"]["packages"]) == set(MAY_IMPORT) == {"merino", *PACKAGES}
    assert {name for name, files in PYPROJECT["tool"]["setuptools"]["package-data"].items() if "py.typed" in files} == set(
        MAY_IMPORT
    )
    modules = {file.stem for file in ROOT.glob("*.py")}
    assert set(PYPROJECT["tool"]["setuptools"]["py-modules"]) == set(PYPROJECT["tool"]["mypy"]["modules"]) == modules
    top_level = {file.parent.name for file in ROOT.glob("[!.]*/__init__.py")} - {"tests"}
    assert top_level <= set(MAY_IMPORT), "a package without a line in MAY_IMPORT"


def test_importing_loads_nothing_heavy() -> None:
    # Watching for the attempt shows it even where a package is not installed and a `try` around the import would hide it.
    program = f"""
import importlib, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY!r}:
            seen.append(f"{{module}} imports {{name}}")
seen = []
sys.meta_path.insert(0, Watch())
for module in {LIGHT!r}:
    importlib.import_module(module)
sys.exit(", ".join(seen) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr


def imported_names(node: ast.AST) -> set[str]:
    """The names that imports anywhere in `node` make."""
    imports = (one for one in ast.walk(node) if isinstance(one, ast.Import | ast.ImportFrom))
    return {(alias.asname or alias.name).partition(".")[0] for one in imports for alias in one.names}


def used_without_import(source: str) -> list[str]:
    """Names imported under TYPE_CHECKING that code uses when it runs; linters take them for defined."""
    tree = ast.parse(source)
    guards = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = set().union(*map(imported_names, guards))
    found: list[str] = []

    def visit(node: ast.AST, have: set[str]) -> None:
        children = [child for child in ast.iter_child_nodes(node) if child not in guards]
        if isinstance(node, ast.FunctionDef):
            have = have | imported_names(node)
            children = [*node.body, *node.decorator_list, *node.args.defaults]
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        elif isinstance(node, ast.Name) and node.id in for_types - have:
            found.append(f"{node.id} in line {node.lineno}")
        for child in children:
            visit(child, have)

    visit(tree, set())
    return found


def test_what_is_imported_for_types_is_imported_where_it_runs() -> None:
    source = """
if TYPE_CHECKING:
    import torch
def typed(x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = x
    return y
def right():
    import torch
    return torch.zeros(1)
def wrong():
    return torch.zeros(1)
"""
    assert used_without_import(source) == ["torch in line 11"]
    files = [file for package in MAY_IMPORT for file in source_files(package)]
    found = {file.relative_to(ROOT).as_posix(): used_without_import(file.read_text(encoding="utf-8")) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_conda_environment_keeps_step() -> None:
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    items = [item[1].strip() for line in lines if (item := re.match(r"\s+- (.*)", line))]
    assert items[0] == "conda-forge"
    assert items[-3:] == ["pip", "pip:", "-e ."]
    conda = requirements(items[1:-3])
    assert conda.pop("python").specifier == PYPROJECT["project"]["requires-python"]
    project = requirements(PYPROJECT["project"]["dependencies"])
    bounds = {name: str(one.specifier) for name, one in project.items()}
    assert {name: str(one.specifier) for name, one in conda.items()} == bounds


def test_constraints_pin_what_the_tests_install() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PYPROJECT["project"]["optional-dependencies"]
    installed = [*PYPROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    for name, wanted in requirements(installed).items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert wanted.specifier.contains(pins[name]), f"constraints.txt pins {name} to {pins[name]}, pyproject.toml wants {wanted}"


def test_version_is_given_once() -> None:
    again = re.compile(rf"(?<!torch\.)(?<!genai\.)__version__|[\"']{re.escape(PYPROJECT['project']['version'])}[\"']")
    files = [ROOT / "Makefile", ROOT / "environment.yml", *(file for package in MAY_IMPORT for file in source_files(package))]
    assert [file for file in files if again.search(file.read_text(encoding="utf-8"))] == []


def test_changelog_opens_with_the_current_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == PYPROJECT["project"]["version"]
