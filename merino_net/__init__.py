"""The network: a designed architecture as a PyTorch model of the Hugging Face family. Importing this package registers it there."""

try:
    import torch  # noqa: F401
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
except ImportError as error:
    raise ImportError(f"merino_net needs {error.name}: install the extra net, as in pip install -e '.[net]'") from None

from merino_net.network.configuration import MerinoConfig
from merino_net.network.modeling import MerinoForCausalLM, MerinoModel
from merino_net.shipping import quantized_weights  # noqa: F401  (registers the format with transformers)

AutoConfig.register(MerinoConfig.model_type, MerinoConfig, exist_ok=True)
AutoModel.register(MerinoConfig, MerinoModel, exist_ok=True)
AutoModelForCausalLM.register(MerinoConfig, MerinoForCausalLM, exist_ok=True)

__all__ = ["MerinoConfig", "MerinoForCausalLM", "MerinoModel"]
