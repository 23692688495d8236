"""Numbers, tables and counted things in words, as every command prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 design, 1,200 designs, 2.3·10⁶⁷ designs; `many` where an s is not enough."""
    return f"{number_of(number)} {one if number == 1 else many or one + 's'}"


def number_of(number: int) -> str:
    """A whole number as people read it: 1,200; from 10²¹ on rounded to two digits, 2.3·10⁶⁷."""
    if number < 10**21:
        return f"{number:,}"
    mantissa, exponent = f"{Decimal(number):.1e}".split("e+")
    return f"{mantissa}·10{exponent.translate(_RAISED)}"


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


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


def number_text(value: float) -> str:
    """60 G, 61.3 M, 1,234."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.12g} {letter}"
    return f"{value:,.12g}"


def value_text(value: float) -> str:
    """A value that is compared with others: 23,104.92, 47,270,144, 0.05012."""
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4g}"


def with_unit(number: str, unit: str) -> str:
    """43.17 ms; the number alone where the unit is "1", a share."""
    return number if unit == "1" else f"{number} {unit}"


def short(value: float, digits: int = 4, rounding: str = ROUND_HALF_EVEN) -> str:
    """A number for people, rounded to nearest or as `decimal` names it: 60.13 G, 407.3 M."""
    # Rounding up or down starts from 12 digits, as budgets do: 0.1 + 0.2 is 0.3.
    return number_text(float(Context(prec=digits, rounding=rounding).create_decimal(f"{value:.12g}")))


def change_text(value: float, digits: int = 4, down: bool = False) -> str:
    """A change of a budget with its sign, rounded so that it suffices, up or, for a budget from below, down: +0.13 G, −2 G."""
    if not value:
        return "0"
    away, towards = (ROUND_FLOOR, ROUND_CEILING) if down else (ROUND_CEILING, ROUND_FLOOR)
    return f"+{short(value, digits, away)}" if value > 0 else f"−{short(-value, digits, towards)}"


def per_cent(value: float, base: float) -> str:
    """Change from `base` to `value` in per cent, with its sign; empty where the base is 0, and "same" where they agree."""
    if not base:
        return ""
    change = 100 * (value - base) / abs(base)
    if abs(change) < 1e-7:
        return "same"
    return f"{change:+.2g} %".replace("-", "−") if abs(change) < 1 else f"{change:+.1f} %".replace("-", "−")
