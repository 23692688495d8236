"""Makes the network known to transformers' Auto classes: at once where these are loaded, else as soon as they are.

transformers and torch take seconds to load, and a base installation has neither, so importing `merino_net` must not ask for them:
commands print their help, and models and texts are read by name, without.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

_AUTO = "transformers.models.auto."
_MODELING = "merino_net.network.modeling_merino"


def require_network() -> None:
    """ImportError, with the command that installs it, where PyTorch or transformers is missing."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"merino_net needs {name}: install the extra net, as in pip install -e '.[net]'")


def register() -> None:
    """Make the network known now or later, see above."""
    if not all(name in sys.modules for name in _REGISTER):
        sys.meta_path.insert(0, _Finder())
    for name, known in _REGISTER.items():
        if name in sys.modules:
            known()


def _register_configuration() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from merino_net.network.configuration_merino import MerinoConfig

    AutoConfig.register(MerinoConfig.model_type, MerinoConfig, exist_ok=True)


def register_models() -> None:
    """Make the models known, or leave it to the end of their own module, behind which this is called again.

    That module imports the Auto classes if nobody did before, and then has no classes yet.
    """
    modeling = importlib.import_module(_MODELING)
    if not hasattr(modeling, "MerinoForTokenClassification"):
        return
    from transformers.models.auto import modeling_auto

    from merino_net.network.configuration_merino import MerinoConfig

    for kind in ("Model", "ModelForCausalLM", "ModelForSequenceClassification", "ModelForTokenClassification"):
        own = getattr(modeling, f"Merino{kind.removeprefix('Model') or 'Model'}")
        getattr(modeling_auto, f"Auto{kind}").register(MerinoConfig, own, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{_AUTO}configuration_auto": _register_configuration,
    f"{_AUTO}modeling_auto": register_models,
    _MODELING: register_models,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the Auto classes as Python does, and has the network registered behind their code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target) if fullname in _REGISTER else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _REGISTER[fullname])
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, known: Callable[[], None]) -> None:
        self._loader, self._known = loader, known

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # as if nobody had stood between
        self._loader.exec_module(module)
        self._known()
