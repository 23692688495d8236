"""Numbers, tables and counted things in words, as every command prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 design, 1,200 designs; `many` where an s is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: set[int]) -> str:
    """A table for people: columns as wide as their widest cell, aligned right but for the columns numbered in `left`."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    aligned = (
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, ["-" * width for width in widths], *lines)
    )
    return "\n".join(line.rstrip() for line in aligned)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; all columns but the first `left` are aligned right."""
    rule = [":--" if i < left else "--:" for i in range(len(header))]
    lines = (header, rule, *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
