"""A text that every Python has with it: the docstrings of its standard library, a document for each module, none twice.

Larger than the topics of `help()`, which `merino_net.corpus.text` reads by default, and in one tone: enough to train a
small network on. The modules are parsed, never imported.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from formulation.records.files import replace_file
from merino_net.corpus.data import split
from merino_net.corpus.text import END_OF_TEXT

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
"""Folders of the standard library that hold other people's packages, or tests."""


def standard_library() -> Path:
    """The folder of the standard library of the Python that runs."""
    return Path(sysconfig.get_paths()["stdlib"])


def docstrings(folder: Path) -> dict[str, str]:
    """Module file, relative to `folder` -> its docstrings with a blank line between them; modules without any are left out.

    In the order of the files' paths, and in a file of its lines. A docstring that stood in an earlier place is left out, so that no
    part of the text repeats another word for word. Files that this Python cannot parse are passed over, and so are tests and
    packages that were installed. ValueError if no docstring is found.
    """
    seen: set[str] = set()
    documents = {}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if _LEFT_OUT.isdisjoint(name.parts):
            own = [text for text in dict.fromkeys(_docstrings_of(path)) if text not in seen]
            seen.update(own)
            if own:
                documents[name.as_posix()] = "\n\n".join(own)
    if not documents:
        raise ValueError(f"{folder} holds no Python file with a docstring; expected the folder of a library")
    return documents


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old code may spell its strings in ways that Python warns of
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # examples of wrong code, or null bytes
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        text = ast.get_docstring(node)
        if text and not text.isspace():
            yield text


def write_split(documents: Mapping[str, str], held_out: float, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write training.txt and held_out.txt, in the format of `merino_net.corpus.text`, and give their paths.

    Args:
        held_out: share of the documents that are held out, whole ones, drawn under `seed`.

    ValueError if either file would be empty.
    """
    names = list(documents)
    parts = zip(("training", "held_out"), split(len(names), held_out, seed), strict=True)
    return tuple(_written(folder / f"{part}.txt", [documents[names[row]] for row in rows]) for part, rows in parts)  # type: ignore[return-value]


def _written(path: Path, documents: list[str]) -> Path:
    with replace_file(path) as file:
        file.write(f"\n{END_OF_TEXT}\n".join(documents).encode())
    return path
