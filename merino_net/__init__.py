"""The network: a designed architecture as a PyTorch model of the Hugging Face family. Importing this package registers it there."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from merino_net.configuration import MerinoConfig
from merino_net.modeling import MerinoForCausalLM, MerinoModel

AutoConfig.register(MerinoConfig.model_type, MerinoConfig, exist_ok=True)
AutoModel.register(MerinoConfig, MerinoModel, exist_ok=True)
AutoModelForCausalLM.register(MerinoConfig, MerinoForCausalLM, exist_ok=True)

__all__ = ["MerinoConfig", "MerinoForCausalLM", "MerinoModel"]
