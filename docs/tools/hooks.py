"""What the site takes from the rest of the repository while it is built, so that nothing is written twice.

A page asks for a part with comments, `<!-- include: report -->` and `<!-- end -->`; `_PARTS` lists them. What stands between the
two is for readers where nothing fills it in, as on a code host. Notebooks become pages, links that leave docs/ lead to the
repository, pictures that lie elsewhere are copied in, formulas become MathML. mkdocs calls the functions on_....
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import textwrap
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from unittest import mock

from formulas import mathml_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebook_page import Notebook, read_notebook

ROOT = Path(__file__).resolve().parents[2]
DOCS, NOTEBOOKS = ROOT / "docs", ROOT / "notebooks"
COPIES = "repository"
"""Folder of the site for pictures that lie elsewhere in the repository."""

_log = logging.getLogger("mkdocs.hooks.merino")
_PICTURES = (".png", ".svg", ".jpg", ".gif", ".webp")
_CODE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[`~]*[ ]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""What holds no link: blocks of code and code within a line."""
_TARGET = re.compile(r"(?P<before>\]\(|\b(?:src|href)=\")(?P<target>[^)\"\s]+)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_WIDTH = "96"
"""Columns of the help of a command."""


def notebook_files() -> list[Path]:
    """The notebooks that there are, in their order."""
    return sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks that there are under their heading."""
    for entry in config.nav or ():
        if isinstance(entry, dict) and "Notebooks" in entry:
            entry["Notebooks"] += [f"notebooks/{path.stem}.md" for path in notebook_files()]
    return config


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks as pages, with the pictures in them."""
    for path in notebook_files():
        notebook: Notebook = read_notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook.markdown))
        for name, content in notebook.pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the parts that a page asks for, and lead its links to where their targets are on the site."""
    here = page.file.src_uri
    folder = NOTEBOOKS if page.file.generated_by else (DOCS / here).parent

    def linked(text: str, folder: Path) -> str:
        return _outside_code(text, lambda prose: _TARGET.sub(lambda found: _led(found, folder, here, config, files), prose))

    def included(found: re.Match[str]) -> str:
        if found[1] not in _PARTS:
            raise PluginError(f"{here} asks for {found[1]!r}, which is not a part; expected one of {', '.join(_PARTS)}")
        return linked(_PARTS[found[1]](), ROOT)

    filled = re.sub(r"<!-- include: (\S+) -->.*?<!-- end -->", included, linked(markdown, folder), flags=re.DOTALL)
    if "<!-- include:" in filled:
        raise PluginError(f"{here} asks for a part without an <!-- end --> after it")
    return filled


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to all that is not code."""
    parts, end = [], 0
    for found in _CODE.finditer(text):
        parts += [change(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*parts, change(text[end:])])


def _led(found: re.Match[str], folder: Path, here: str, config: MkDocsConfig, files: Files) -> str:
    """A link as it stands on the page `here`; one whose target is not there stays, and mkdocs complains about it."""
    target, _, anchor = found["target"].partition("#")
    if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
        return found[0]
    real = Path(os.path.normpath(folder / target))
    anchor = f"#{anchor}" if anchor else ""
    if real.parent == NOTEBOOKS and real.suffix == ".ipynb" and real.exists():
        place = f"notebooks/{real.stem}.md"
    elif real.is_relative_to(DOCS):
        place = real.relative_to(DOCS).as_posix()
    elif not real.exists() or not real.is_relative_to(ROOT):
        return found[0]
    elif real.suffix in _PICTURES:
        place = f"{COPIES}/{real.relative_to(ROOT).as_posix()}"
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(real)))
    else:
        kind = "tree" if real.is_dir() else "blob"
        return f"{found['before']}{config.repo_url}/{kind}/main/{real.relative_to(ROOT).as_posix()}{anchor}"
    return f"{found['before']}{posixpath.relpath(place, posixpath.dirname(here))}{anchor}"


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Set the formulas; a warning for one that cannot be set."""

    def drawn(found: re.Match[str]) -> str:
        latex = unescape(found[3])
        try:
            return mathml_of(latex, block=found[2] == "[")
        except ValueError as reason:
            _log.warning("%s: the formula %s cannot be set (%s)", page.file.src_uri, latex, reason)
            return found[0]

    return _FORMULA.sub(drawn, html)


def _readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def _introduction() -> str:
    """What the README says before its first section, without its title."""
    return _readme().partition("\n## ")[0].partition("\n")[2]


def _example() -> str:
    """The README's example."""
    found = re.search(r"```python\n.*?```", _readme(), re.DOTALL)
    if found is None:
        raise PluginError("README.md has no block of Python to show on the front page")
    return found[0]


def _report() -> str:
    """What `python -m studies.report` makes of the committed results, without its title."""
    from studies.report.claims import CommittedResults
    from studies.report.study import lines_of, markdown_page

    page = markdown_page(lines_of(CommittedResults(ROOT / "studies" / "results"))).partition("\n")[2]
    return f'<div class="claims" markdown="1">\n{page}\n</div>'


def _list_of_notebooks() -> str:
    """A line for each notebook: its title, and the first sentence after it."""
    lines = []
    for path in notebook_files():
        title, _, text = read_notebook(path).markdown.removeprefix("# ").partition("\n")
        first = re.split(r"(?<=[.!?]) |\n\n", text.strip(), maxsplit=1)[0]
        lines.append(f"- [{title.strip()}](notebooks/{path.name}): {first}")
    return "\n".join(lines)


def _commands() -> str:
    """Every command of `merino`: what its --help says, its flags folded away."""
    from formulation.command.help import called
    from studies.front_door import COMMANDS, GROUPS

    names = {module: f"merino {name}" for name, (module, _) in COMMANDS.items()}
    parts = []
    with called(names), mock.patch.dict(os.environ, COLUMNS=_WIDTH):
        for group, commands in GROUPS.items():
            parts.append(f"## {group[0].upper()}{group[1:]}")
            parts += [_command(names[module], module) for module, _ in commands.values()]
    return "\n\n".join(parts)


def _command(name: str, module: str) -> str:
    """One command."""
    from merino_packages import load

    parser = load(module).command_line()
    about = f"{parser.description}\n\n{parser.epilog or ''}".replace("\n\nexamples:", "\n\nExamples:\n")
    parser.description = parser.epilog = None
    flags = textwrap.indent(f"```text\n{parser.format_help().rstrip()}\n```", "    ")
    return f'### {name}\n\nAlso: `python -m {module}`\n\n{about}\n\n??? note "Flags of {name}"\n\n{flags}'


_PARTS: dict[str, Callable[[], str]] = {
    "introduction": _introduction,
    "example": _example,
    "report": _report,
    "notebooks": _list_of_notebooks,
    "commands": _commands,
}
"""Name in a page's comment -> the Markdown that takes its place; its links are relative to the repository's root."""
