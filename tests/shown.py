"""What a page of documentation shows a reader to type: its blocks of code, and its commands compared with the real parsers."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from merino_packages import load
from studies.front_door import COMMANDS, STUDY

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"[Ss]ave this as\s+`([\w.-]+)`")
_CHECKED = re.compile(r"<!-- checked: (.*?) -->\s*$")
_OTHERS = {".", "cd", "dask", "git", "jupyter", "pdflatex", "python3", "scp", "srun", "ssh"}
"""Programs that are not ours."""


@dataclass(frozen=True)
class Shown:
    """A block of code of a page.

    Attributes:
        line: of the page on which it begins.
        saved: the file that the prose before it says to save it as, empty where it says nothing.
        checked: the command whose output it is said to be, empty where it is none.
    """

    language: str
    text: str
    line: int
    saved: str
    checked: str


def blocks(page: str) -> list[Shown]:
    """The blocks of code of a page, in their order."""
    found, end = [], 0
    for block in _BLOCK.finditer(page):
        before = page[end : block.start()]
        saved, checked = _SAVED.findall(before), _CHECKED.search(before)
        line = page.count("\n", 0, block.start()) + 2
        found.append(Shown(block["language"], block["text"], line, saved[-1] if saved else "", checked[1] if checked else ""))
        end = block.end()
    return found


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command line in the page's blocks of shell, which are those called sh and those without a name."""
    return (words for words, _ in redirected(page))


def redirected(page: str) -> Iterator[tuple[list[str], str]]:
    """The words of each command line, and the file that its output goes to, empty where it goes to none."""
    for block in blocks(page):
        if block.language in ("", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|&$", line):
                    typed, file = shlex.split(part, comments=True), ""
                    if ">" in typed:
                        place = typed.index(">")
                        file = typed[place + 1]
                        del typed[place : place + 2]
                    words = [word for word in typed if not re.match(r"[A-Z_]+=|[<>|]", word)]
                    if words:
                        yield words, file


def arguments_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of ours that a command line starts, and its arguments; None if it starts none."""
    if words[0] == "merino":
        name = f"{STUDY} {words[2].replace('-', '_')}" if words[1] == STUDY else words[1]
        assert name in COMMANDS, f"there is no command merino {name}"
        return COMMANDS[name][0], words[1 + len(name.split()) :]
    if "-m" in words and (Path(words[0]).name == "python" or words[0] == "torchrun"):
        place = words.index("-m")
        return words[place + 1], words[place + 2 :]
    return None


def check(words: list[str]) -> None:
    """Hold a command line against the parser, Makefile target or extra that it names; AssertionError or SystemExit if it fails."""
    ours = arguments_of(words)
    if ours is not None:
        module, arguments = ours
        load(module).command_line().parse_args(arguments)
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"the Makefile has no target {words[1]}"
    elif words[0] == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(known), f"pyproject.toml lacks one of the extras {extras}"
    else:
        assert words[0] in _OTHERS, f"nothing is known of the program {words[0]}"
