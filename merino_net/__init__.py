"""The network: a designed architecture as a PyTorch model of the Hugging Face family. Importing this package registers it there.

PyTorch and transformers are imported with the first of the names below that is asked for, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from merino_net.network.registration import register, require_network

if TYPE_CHECKING:
    from merino_net.network.configuration_merino import MerinoConfig
    from merino_net.network.modeling_merino import MerinoForCausalLM, MerinoModel

__all__ = ["MerinoConfig", "MerinoForCausalLM", "MerinoModel"]

register()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_network()
    importlib.import_module("transformers.models.auto.modeling_auto")  # where the network is registered
    home = "configuration_merino" if name == "MerinoConfig" else "modeling_merino"
    return getattr(importlib.import_module(f"merino_net.network.{home}"), name)
