"""The packages that an installation brings, and the refusal of other files by their names.

Python looks in the working folder first, so a user's own solvers.py there would be imported in place of ours, and fail far from its
cause. What starts here, commands and `merino`, asks before it imports any of them.
"""

from __future__ import annotations

import importlib.util
import os

PACKAGES = ("formulation", "hardware_models", "merino_net", "solvers", "studies")


def refuse_namesakes() -> None:
    """ImportError where another file or folder would be imported in place of one of our packages; says which, and what to do."""
    home = os.path.dirname(os.path.realpath(__file__))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        folders = spec.submodule_search_locations or ()
        if os.path.join(home, name) not in map(os.path.realpath, folders):
            found = spec.origin or next(iter(folders), name)
            raise ImportError(
                f"{found} is imported in place of merino's own package {name}; rename it, to my_{name}.py for example, "
                "or start in another folder"
            )
