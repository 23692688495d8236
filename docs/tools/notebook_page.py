"""A notebook as a page of Markdown, its outputs as they were committed: nothing is executed.

The page goes through the site's own Markdown, so that links are checked, formulas are set and colours change with the rest.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
_REMOTE_PICTURE = re.compile(r"!\[([^\]]*)\]\(https?:[^)]*\)")
_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Notebook:
    """What a notebook becomes.

    Attributes:
        markdown: the page; it names its pictures as if they lay in its own folder.
        pictures: their contents, by name.
    """

    markdown: str
    pictures: dict[str, bytes]


def read_notebook(path: Path) -> Notebook:
    """The page of a notebook file. ValueError if it is none, or where a cell ended in an error."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook ({type(error).__name__}: {error})") from None
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(cells, start=1):
        source = "".join(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            parts.append(_REMOTE_PICTURE.sub(r"\1", _with_markdown_inside(source)))  # a badge would come from a server
        elif cell["cell_type"] == "code" and source:
            shown = [_fenced("python", source)]
            for place, output in enumerate(cell["outputs"], start=1):
                if output["output_type"] == "error":
                    raise ValueError(f"cell {number} of {path} ended in {output['ename']}: {output['evalue']}")
                shown.append(_shown(output, f"{path.stem}_{number}_{place}", pictures))
            parts.append(_folded(cell, "\n\n".join(part for part in shown if part)))
    return Notebook("\n\n".join(parts) + "\n", pictures)


def _fenced(language: str, text: str) -> str:
    """A block of code, between more backquotes than it holds itself."""
    longest = max((len(found) for found in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _with_markdown_inside(source: str) -> str:
    """<details> holds Markdown in a notebook; here it has to say so."""
    return re.sub(r"<details(?![^>]*\bmarkdown=)([^>]*)>", r'<details markdown="1"\1>', source)


def _folded(cell: dict[str, Any], text: str) -> str:
    """A cell whose input a notebook hides is folded away with all it shows."""
    metadata = cell.get("metadata", {})
    if metadata.get("jupyter", {}).get("source_hidden") or "hide-input" in metadata.get("tags", ()):
        return f'<details markdown="1">\n<summary>Solution</summary>\n\n{text}\n\n</details>'
    return text


def _shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """One output: a picture if it has one, else the richest text."""
    if output["output_type"] == "stream":
        return _text("".join(output["text"]))
    data = {kind: "".join(value) if isinstance(value, list) else value for kind, value in output["data"].items()}
    for kind, suffix in _IMAGES.items():
        if kind in data:
            file = f"{name}.{suffix}"
            pictures[file] = data[kind].encode() if suffix == "svg" else base64.b64decode(data[kind])
            return f"![What the cell above draws]({file}){{ .output }}"
    if "text/html" in data:
        return f'<div class="output">\n{data["text/html"].strip()}\n</div>'
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/latex" in data:
        return data["text/latex"].strip()
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    text = _TERMINAL_COLOUR.sub("", text).strip("\n")
    return f'<div class="output" markdown="1">\n\n{_fenced("text", text)}\n\n</div>' if text.strip() else ""
