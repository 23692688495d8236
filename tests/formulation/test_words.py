"""Numbers as people read them."""

from __future__ import annotations

import pytest

from formulation.command.words import value_text, with_unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (23104.9153, "23,104.92"),
        (47_270_144.0, "47,270,144"),
        (43.168, "43.17"),
        (0.050123456, "0.05012"),
        (7.65, "7.65"),
        (0.0, "0"),
    ],
)
def test_values_keep_four_digits_at_least(value: float, text: str) -> None:
    assert value_text(value) == text


def test_a_share_has_no_unit() -> None:
    assert (with_unit("0.05", "1"), with_unit("43.17", "ms")) == ("0.05", "43.17 ms")
