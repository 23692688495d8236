"""The promises of a design, and a network of the Hugging Face kind compared with them.

A design file names its budgets by quantities of `hardware_models`; here they become promises of `merino_net.shipping.promises`,
which predict, of the network as it was built, what it cannot show of itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from formulation import Architecture, Budget
from formulation.command.exit_code import ExitCode
from hardware_models.names import quantity_to_dict
from solvers.questions.design_file import Stored

if TYPE_CHECKING:
    from merino_net.shipping.promises import Made, Promise

_NETWORK = "config.json"
"""The file that says that a folder holds a network."""


def promises_of(budgets: tuple[Budget, ...], design: Architecture) -> list[Promise]:
    """A promise for each budget of a design; its cost model predicts the value of the network as it was built."""
    from merino_net.shipping.promises import Promise, measure_of, name_of, of_bytes

    found = []
    for budget in budgets:
        record, quantity = quantity_to_dict(budget.quantity), budget.quantity

        def predict(made: Made, budget: Budget = budget) -> float | None:
            try:
                network = made.in_terms_of(design)
                return None if network is None else budget.quantity(network)
            except ValueError:  # a latency table that was not validated for this vocabulary
                return None

        name = name_of(record, quantity.name)
        at_least = budget.upper is None
        found.append(Promise(name, quantity.unit, budget.bound, measure_of(record), predict, of_bytes(record), at_least))
    return found


def check_network(stored: Stored, folder: Path) -> int:
    """Compare the network beside a design file with the design: shape, weights, budgets. Prints them and returns the exit code.

    0 where nothing is wrong, or where there is no network; 3 where it exceeds a budget or is another than the design; only its
    vocabulary may differ, which is said. Raises ValueError if the weights cannot be read or are not finite numbers.
    """
    if stored.architecture is None or not (folder / _NETWORK).is_file():
        return 0
    import torch

    from merino_net.network.pretrained import find_models, load_weights, quieten
    from merino_net.shipping.promises import Made, differences, exit_code, table

    quieten(str(folder))
    [found] = find_models([str(folder)])
    load_weights(found.source, found.name, torch.float32)
    made = Made.stored(folder)
    if made.architecture is None:
        print(f"a promise is broken: {folder} holds a {made.config.model_type} model, not the design", file=sys.stderr)
        return ExitCode.BROKEN_PROMISE
    outcomes = [promise.outcome(made) for promise in promises_of(stored.problem.subject_to, stored.architecture)]
    print(f"The network in {folder}: {made.parameters:,} parameters, a vocabulary of {made.architecture.vocabulary:,}.")
    if outcomes:
        print(table(outcomes))
    differing = differences(stored.architecture, made.architecture)
    if differing:
        print(f"It differs from the design: {'; '.join(differing)}.")
    others = [one for one in differing if not one.startswith("vocabulary")]
    if others:
        print(f"a promise is broken: the network is not the design, {others[0]}", file=sys.stderr)
    return ExitCode.BROKEN_PROMISE if others else exit_code(outcomes)
