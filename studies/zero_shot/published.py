"""What the paper's tables say of nine systems beside their latency: size, perplexities, zero-shot accuracies; and of which tasks.

Latencies and architectures are in `formulation.published`. Here, too, are public results of the baselines under the same harness,
from which the metric of each column, which the paper does not name, is inferred. What follows from all this is
`studies.zero_shot.levels`'.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperTask:
    """A task of the paper's, under its name in lm-evaluation-harness.

    Attributes:
        title: as in the tables.
        examples: in the split that the harness evaluates.
        options: among which it lets the model choose (in ARC a few questions have 3 or 5 of them).
        metric: of the harness's that the published figures are, as inferred from `PUBLIC_RESULTS`: acc, or acc_norm.
    """

    title: str
    examples: int
    options: int
    metric: str = "acc"


PAPER_TASKS = {
    "hellaswag": PaperTask("HellaSwag", 10_042, 4),
    "winogrande": PaperTask("WinoGrande", 1_267, 2),
    "arc_easy": PaperTask("ARC-E", 2_376, 4, "acc_norm"),
    "arc_challenge": PaperTask("ARC-C", 1_172, 4, "acc_norm"),
    "openbookqa": PaperTask("OBQA", 500, 4, "acc_norm"),
    "boolq": PaperTask("BoolQ", 3_270, 2),
    "wic": PaperTask("WiC", 638, 2),
    "cb": PaperTask("CB", 56, 3),
    "wsc": PaperTask("WSC", 104, 2),
    "rte": PaperTask("RTE", 277, 2),
    "pubmedqa": PaperTask("PubMedQA", 500, 3),
    "logiqa": PaperTask("LogiQA", 651, 4, "acc_norm"),
}
"""The twelve tasks in the paper's order. Titles and examples are those of `merino_net.scoring.zero_shot.TASKS`, which needs
PyTorch; a test compares the two. Only HellaSwag, ARC, OpenBookQA and LogiQA have an acc_norm."""


@dataclass(frozen=True)
class PublishedScores:
    """One row of the paper's tables 2 and 3, as printed there.

    Attributes:
        parameters: the FLOPs of 1,024 tokens; whether the output head counts differs from system to system.
        flops: the FLOPs of 1,024 tokens; whether the output head counts differs from system to system.
        wikitext2: perplexities.
        ptb: perplexities.
        average: of the accuracies, as printed; `accuracies` follow the order of `PAPER_TASKS`.
    """

    parameters: float
    flops: float
    wikitext2: float
    ptb: float
    average: float
    accuracies: tuple[float, ...]


PUBLISHED_SCORES = {
    "Pythia-70M": PublishedScores(
        70e6, 100e9, 40.95, 60.28, 0.383, (0.269, 0.529, 0.335, 0.214, 0.272, 0.589, 0.486, 0.339, 0.365, 0.523, 0.409, 0.266)
    ),
    "Pythia-162M": PublishedScores(
        162e6, 270e9, 23.52, 36.02, 0.409, (0.292, 0.492, 0.373, 0.231, 0.264, 0.571, 0.500, 0.446, 0.365, 0.563, 0.544, 0.269)
    ),
    "Cerebras-111M": PublishedScores(
        111e6, 260e9, 36.93, 51.89, 0.402, (0.267, 0.490, 0.336, 0.207, 0.256, 0.621, 0.500, 0.411, 0.365, 0.549, 0.552, 0.266)
    ),
    "GPT-2-124M": PublishedScores(
        124e6, 290e9, 25.19, 33.95, 0.400, (0.300, 0.516, 0.382, 0.230, 0.272, 0.554, 0.492, 0.410, 0.433, 0.531, 0.430, 0.245)
    ),
    "OPT-125M": PublishedScores(
        125e6, 210e9, 23.62, 29.02, 0.373, (0.267, 0.503, 0.386, 0.233, 0.226, 0.554, 0.498, 0.357, 0.365, 0.444, 0.372, 0.286)
    ),
    "OPT-350M": PublishedScores(
        331e6, 720e9, 18.51, 23.08, 0.408, (0.283, 0.523, 0.389, 0.233, 0.286, 0.618, 0.500, 0.464, 0.365, 0.542, 0.414, 0.280)
    ),
    "MeRino-52M": PublishedScores(
        52e6, 60e9, 39.05, 52.18, 0.383, (0.267, 0.507, 0.327, 0.212, 0.242, 0.541, 0.525, 0.411, 0.413, 0.502, 0.377, 0.276)
    ),
    "MeRino-61M": PublishedScores(
        61e6, 110e9, 34.24, 34.11, 0.392, (0.273, 0.510, 0.336, 0.209, 0.248, 0.610, 0.502, 0.375, 0.365, 0.534, 0.484, 0.255)
    ),
    "MeRino-64M": PublishedScores(
        64e6, 160e9, 22.47, 27.06, 0.408, (0.274, 0.528, 0.341, 0.234, 0.267, 0.621, 0.505, 0.393, 0.375, 0.545, 0.540, 0.278)
    ),
}
"""The nine systems of the paper's tables, baselines first."""


@dataclass(frozen=True)
class PublicResult:
    """A baseline's accuracy under lm-evaluation-harness, made public by others; acc_norm None if they give acc alone."""

    system: str
    task: str
    acc: float
    acc_norm: float | None
    source: str


_PYTHIA = "EleutherAI/pythia, evals/pythia-v1/pythia-70m/zero-shot/70m_step143000.json"
_HARNESS = "EleutherAI/lm-evaluation-harness, results/opt"
_CEREBRAS = "Cerebras/modelzoo, modelzoo/transformers/pytorch/gpt3/configs/Cerebras_GPT/README.md, 0-shot"

PUBLIC_RESULTS = (
    PublicResult("Pythia-70M", "arc_easy", 0.3737, 0.3502, _PYTHIA),
    PublicResult("OPT-125M", "arc_easy", 0.4352, 0.3998, _HARNESS),
    PublicResult("OPT-350M", "arc_easy", 0.4402, 0.4036, _HARNESS),
    PublicResult("Cerebras-111M", "arc_easy", 0.380, None, _CEREBRAS),
    PublicResult("Pythia-70M", "arc_challenge", 0.1809, 0.2210, _PYTHIA),
    PublicResult("OPT-125M", "arc_challenge", 0.1894, 0.2278, _HARNESS),
    PublicResult("OPT-350M", "arc_challenge", 0.2073, 0.2389, _HARNESS),
    PublicResult("Cerebras-111M", "arc_challenge", 0.166, None, _CEREBRAS),
    PublicResult("Pythia-70M", "logiqa", 0.2104, 0.2565, _PYTHIA),
    PublicResult("OPT-125M", "logiqa", 0.2273, 0.2796, _HARNESS),
    PublicResult("OPT-350M", "logiqa", 0.2104, 0.2857, _HARNESS),
    PublicResult("Pythia-70M", "openbookqa", 0.132, None, _CEREBRAS),
    PublicResult("Pythia-162M", "openbookqa", 0.160, None, _CEREBRAS),
    PublicResult("Cerebras-111M", "openbookqa", 0.118, None, _CEREBRAS),
    PublicResult("OPT-125M", "openbookqa", 0.166, None, _CEREBRAS),
    PublicResult("OPT-350M", "openbookqa", 0.176, None, _CEREBRAS),
    PublicResult("Pythia-70M", "hellaswag", 0.270, None, _CEREBRAS),
    PublicResult("Pythia-162M", "hellaswag", 0.293, None, _CEREBRAS),
    PublicResult("Cerebras-111M", "hellaswag", 0.268, None, _CEREBRAS),
    PublicResult("OPT-125M", "hellaswag", 0.292, None, _CEREBRAS),
    PublicResult("OPT-350M", "hellaswag", 0.320, None, _CEREBRAS),
)
"""Zero-shot results of baselines on the tasks that have an acc_norm. Weights and versions of the harness may differ from the
paper's (Cerebras' table has the first release of Pythia)."""
