"""Boosted trees, which the additive model is compared with; scikit-learn is imported where they run."""

from __future__ import annotations

import importlib
from typing import Any

ADDITIVE, CEILING = "additive", "trees (ceiling)"
"""Names of the model that adds up over layers, and of the best setting of the trees that it is compared with."""


def scikit_learn() -> Any:
    """The module `sklearn.ensemble`; ImportError in one sentence if it isn't installed."""
    try:
        return importlib.import_module("sklearn.ensemble")
    except ImportError:
        raise ImportError("the boosted trees need scikit-learn; install it with: pip install scikit-learn") from None
