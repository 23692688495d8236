"""Published small language models as configurations of transformers' own classes, to build and measure beside a design.

Shapes only, with random weights: what runs at their speed and takes their memory. The weights live on the Hugging Face hub
under the names given in `HUB_NAMES`.
"""

from __future__ import annotations

from transformers import GPT2Config, GPTNeoXConfig, OPTConfig, PreTrainedConfig

HUB_NAMES = {
    "OPT-125M": "facebook/opt-125m",
    "OPT-350M": "facebook/opt-350m",
    "GPT-2": "openai-community/gpt2",
    "Pythia-70M": "EleutherAI/pythia-70m",
    "Pythia-162M": "EleutherAI/pythia-160m",
    "Cerebras-111M": "cerebras/Cerebras-GPT-111M",
}
"""Name in the paper's tables -> name on the hub."""


def baseline_config(name: str) -> PreTrainedConfig:
    """The published configuration of the model that the paper's tables call `name`; ValueError for any other name.

    Sources: the config.json of each model on the hub (`HUB_NAMES`). OPT-350M embeds in 512 and projects to 1024 and back,
    with its norms after the sub-layers; Pythia's output head is not tied.
    """
    match name:
        case "OPT-125M":
            return OPTConfig()
        case "OPT-350M":
            return OPTConfig(
                hidden_size=1024,
                num_hidden_layers=24,
                ffn_dim=4096,
                num_attention_heads=16,
                word_embed_proj_dim=512,
                do_layer_norm_before=False,
            )
        case "GPT-2":
            return GPT2Config()
        case "Pythia-70M":
            return _pythia(hidden_size=512, num_hidden_layers=6, num_attention_heads=8)
        case "Pythia-162M":
            return _pythia(hidden_size=768, num_hidden_layers=12, num_attention_heads=12)
        case "Cerebras-111M":
            return GPT2Config(n_positions=2048, n_layer=10, n_inner=3072, activation_function="gelu")
    raise ValueError(f"there is no baseline {name!r}; choose one of {', '.join(HUB_NAMES)}")


def _pythia(hidden_size: int, num_hidden_layers: int, num_attention_heads: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    )
