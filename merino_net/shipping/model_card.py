"""The model card: what a model folder holds, told to a stranger in Markdown as the Hugging Face hub shows it.

Each section is a function of one record (design.json, training.json, evaluate.json, export.json) and empty if there isn't one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from formulation.architecture import Architecture
from formulation.command.words import counted, markdown_table
from formulation.family import family_of
from formulation.records.reading import read_json, shown
from merino_net.network.configuration_merino import MerinoConfig
from merino_net.network.counting import forward_flops, parameter_count
from merino_net.network.plain import architecture_of
from merino_net.network.pretrained import first_line, positions_of
from merino_net.shipping.forms import DEVICES, FORMS, HF, differences_text
from merino_net.shipping.promises import differences
from merino_net.shipping.runtimes import RUNTIMES

Record = dict[str, Any]

_CITATION = """\
@inproceedings{zhao2025merino,
  title     = {MeRino: Entropy-Driven Design for Generative Language Models on IoT Devices},
  author    = {Zhao, Youpeng and Lin, Ming and Tang, Huadong and Wu, Qiang and Wang, Jun},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv:2403.07921}
}"""


def model_card(folder: Path, name: str | None = None, config: PreTrainedConfig | None = None) -> str:
    """The model card of a folder that `from_pretrained` reads, Markdown with the hub's front matter.

    Args:
        name: of the model; None: the folder's.
        config: of the model; None: what config.json says.

    Of design.json, training.json, evaluate.json, export.json and ship.json, each that is there has its section. Raises ValueError
    if a file is damaged, and if config.json is asked for and missing.
    """
    config = _configuration(folder) if config is None else config
    design, training, evaluation, export, shipped = (
        _record(folder / file) for file in ("design.json", "training.json", "evaluate.json", "export.json", "ship.json")
    )
    forms = [_of(form) for form in (*(export.get("forms") or ()), *([shipped["form"]] if "form" in shipped else ()))]
    title = name or folder.resolve().name
    sections = (
        front_matter(config),
        f"# {title}\n\n{summary(config, design)}",
        use_section(title, config, forms if export or shipped else None),
        design_section(config),
        proof_section(design, config, export),
        shipping_section(shipped),
        size_section(config, forms),
        training_section(training),
        evaluation_section(evaluation),
        limitations_section(training, evaluation),
        f"## Citation\n\nThe method is that of:\n\n```bibtex\n{_CITATION}\n```",
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _configuration(folder: Path) -> PreTrainedConfig:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model: it has no config.json; expected a folder that save_pretrained wrote")
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the config.json of {folder} cannot be used ({first_line(error)})") from None


def _record(path: Path) -> Record:
    """The JSON object in a file; an empty one if there isn't one."""
    if not path.is_file():
        return {}
    record = read_json("file", path)
    if not isinstance(record, dict):
        raise ValueError(f"the file {path} is {shown(record)}; expected a JSON object, so mend it or take it away")
    return record


def number(value: Any) -> str:
    """A number for people: 52,602,880; 59,953,381,376; 23,387.7; 0.0125. A dash for None, and anything else as it is."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return (
        f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    )


def front_matter(config: PreTrainedConfig) -> str:
    """What the hub reads: library, task, tags."""
    tags = ["causal-lm", config.model_type]
    if isinstance(config, MerinoConfig):
        tags += ["neural-architecture-search", "small-language-model"]
    listed = "\n".join(f"- {tag}" for tag in tags)
    return f"---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n{listed}\n---"


def summary(config: PreTrainedConfig, design: Record) -> str:
    """One sentence on what this is, and on how it came about where that is known."""
    size = f"{parameters_of(config):,} parameters"
    if not isinstance(config, MerinoConfig):
        return f"A causal language model of {size} ({config.model_type})."
    status = _solution(design).get("status")
    proof = {
        "optimal": ", proved to be the best of its search space",
        "feasible": " within stated budgets, with a bound on how much better any other could be",
    }.get(str(status), "")
    return (
        f"A block-wise decoder-only language model of {size}. Its shape was found by mathematical programming with Merino{proof}."
        if status
        else f"A block-wise decoder-only language model of {size}, in the family of networks that Merino designs."
    )


def parameters_of(config: PreTrainedConfig) -> int:
    """Parameters of a network of this configuration, tied ones counted once; nothing is computed and no memory taken."""
    with torch.device("meta"):
        return parameter_count(AutoModelForCausalLM.from_config(config))


def use_section(title: str, config: PreTrainedConfig, forms: Sequence[Record] | None) -> str:
    """How to run the model in each form of the folder; None for a folder of the Hugging Face kind that nobody exported."""
    written = [HF] if forms is None else [str(form.get("form")) for form in forms]
    parts = ["## How to use it"]
    if HF in written:
        parts += _use_in_transformers(title, isinstance(config, MerinoConfig))
    for form in forms or ():
        name, place = str(form.get("form")), f"{title}/{form.get('folder')}"
        if name == "onnx":
            parts += _use_in_onnx(title, place)
        elif name == "openvino":
            parts += _use_in_openvino(title, place)
        elif name in RUNTIMES:
            language, *lines = RUNTIMES[name].use
            typed = "\n".join(lines).replace("FOLDER", place)
            parts.append(f"In {RUNTIMES[name].title}, with {form.get('weights')} weights:\n\n```{language}\n{typed}\n```")
    parts.append("Which form for which device:\n\n" + markdown_table(("device", "form", "remark"), DEVICES, left=3))
    missing = [name for name in FORMS if name not in written]
    if missing:
        parts.append(
            f"Not in this folder: {', '.join(f'`{name}`' for name in missing)}; "
            f"`python -m merino_net.export MODEL --output OTHER --to {missing[0]}` makes one of the trained model."
        )
    return "\n\n".join(parts)


def _use_in_transformers(title: str, carried: bool) -> list[str]:
    needs = (
        "With transformers, which takes the network's code from this folder once you say that you trust it "
        "(where `merino_net` is imported, the package's own is taken):"
        if carried
        else "With transformers:"
    )
    trust = ", trust_remote_code=True" if carried else ""
    python = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'folder = "{title}"  # this folder, or its name on the hub',
        f"model = AutoModelForCausalLM.from_pretrained(folder{trust})",
        f"tokenizer = AutoTokenizer.from_pretrained(folder{trust})",
        'prompt = tokenizer("The network", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))",
    ]
    return [
        needs,
        "```python\n" + "\n".join(python) + "\n```",
        f'On the command line: `python -m merino_net.generate {title} --prompt "The network"`.',
    ]


def _use_in_onnx(title: str, place: str) -> list[str]:
    lines = [
        "import numpy as np",
        "from pathlib import Path",
        "from transformers import AutoTokenizer",
        "from merino_net.shipping.onnx_model import load_onnx",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{title}")',
        f'model = load_onnx(Path("{place}"), threads=2)',
        'tokens = model.generate(np.array([tokenizer("The network")["input_ids"]]), 50)',
    ]
    return [
        f"In ONNX Runtime one graph with a key-value cache, `{place}/model.onnx`, does prefill and cached decoding. Its inputs are "
        "`input_ids` and `position_ids` (batch, tokens), `attention_mask` (batch, past + tokens), `logits_to_keep` (which of "
        "the tokens get logits) and the cache; its outputs are the logits and the cache for the next step:",
        "```python\n" + "\n".join(lines) + "\n```",
    ]


def _use_in_openvino(title: str, place: str) -> list[str]:
    lines = [
        "import numpy as np",
        "from pathlib import Path",
        "from transformers import AutoTokenizer",
        "from merino_net.shipping.openvino_model import OpenVinoModel",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{title}")',
        f'model = OpenVinoModel(Path("{place}"), precision="bf16", threads=2)',
        'tokens = np.array([tokenizer("The network")["input_ids"]])',
        "model.begin()",
        "logits = model.logits(tokens, np.ones_like(tokens))  # the next call goes on from the cache",
    ]
    return ["In OpenVINO, which keeps the cache inside:\n\n```python\n" + "\n".join(lines) + "\n```"]


def design_section(config: PreTrainedConfig) -> str:
    """The blocks and what surrounds them; of a network that is no `formulation.Architecture`, what its configuration tells."""
    design = architecture_of(config)
    if design is None:
        told = {
            "layers": getattr(config, "num_hidden_layers", None),
            "width": getattr(config, "hidden_size", None),
            "attention heads": getattr(config, "num_attention_heads", None),
            "vocabulary": getattr(config, "vocab_size", None),
            "positions": positions_of(config),
        }
        return "## Architecture\n\n" + markdown_table(("", ""), [(name, number(value)) for name, value in told.items()])
    family = family_of(design.family)
    shapes = (
        (i, block.width, block.ffn_width, block.depth, block.heads, block.kv_heads, block.head_size)
        for i, block in enumerate(design.blocks, start=1)
    )
    blocks = [tuple(map(number, shape)) for shape in shapes]
    columns = ("block", "width", "feed-forward width", "depth in layers", "attention heads", "key/value heads", "head size")
    sharing = (
        "the layers of a block share one set of weights (parameters count once, work counts every application)"
        if design.shared
        else "every layer has its own weights"
    ) + (", unless the line above says otherwise of a block" if any(block.shared is not None for block in design.blocks) else "")
    head = "tied to the output head" if design.tied else "beside an output head of its own"
    positions = "learned, added where the first block begins" if family.learned_positions else "rotary"
    norm = "LayerNorm" if family.norm_bias else "RMSNorm"
    norms = "one behind the last block" if family.final_norm else "none at the end"
    facts = [
        f"in one line: `{design}`",
        f"family: {design.family}",
        f"weights: {sharing}",
        f"embedding, {head}: {design.vocabulary:,} tokens, {design.embedding_width} wide",
        f"positions, {positions}: {design.positions:,}, the longest text in tokens",
        f"norms: {norm}, two in a layer, {norms}",
        f"activation: {getattr(config, 'hidden_act', None) or getattr(config, 'activation_function', family.activation)}",
    ]
    if family.joints:
        joints = ", ".join(f"{left} to {right}" for left, right in design.unequal_neighbours) or "none: all widths are equal"
        facts.append(f"{'linear maps' if design.joints == 'linear' else 'padding'} between unequal widths: {joints}")
    return "\n\n".join(
        (
            "## Architecture",
            "Decoder blocks in order, input first:",
            markdown_table(columns, blocks),
            "\n".join(f"- {fact}" for fact in facts),
        )
    )


def _solution(design: Record) -> Record:
    """What design.json says of the solution; empty for a bare architecture."""
    solution = design.get("solution")
    return solution if isinstance(solution, dict) else {}


def proof_section(design: Record, config: PreTrainedConfig, export: Record) -> str:
    """What is proved about the design: status, objective, bound, gap; its budgets, and what the exported network has of them."""
    solution = _solution(design)
    if not solution:
        return ""
    unit, problem = solution.get("unit", ""), _object(design, "problem")
    least = "maximize" not in problem and bool(problem.get("minimize"))
    quantity = _of(problem["minimize"][0]) if least else _object(problem, "maximize")
    better, passes = ("a smaller", "is below") if least else ("a greater", "exceeds")
    status = {
        "optimal": f"optimal: no design of the search space that meets the budgets has {better} objective",
        "feasible": f"feasible: it meets the budgets, and no design {passes} the bound; whether one is better is not known",
    }.get(str(solution.get("status")), str(solution.get("status")))
    objective = f"{'least ' if least else ''}{quantity.get('quantity', 'the objective')}"
    gap = solution.get("gap")
    facts = [
        ("status", status),
        (f"objective ({objective})", f"{number(solution.get('objective'))} {unit}"),
        (f"bound: no design {passes} it", f"{number(solution.get('bound'))} {unit}"),
        ("gap between them, relative", "-" if gap is None else f"{gap:.3%}"),
    ]
    parts = ["## What is proved", markdown_table(("", ""), facts, left=2)]
    usage = [_of(line) for line in solution.get("usage") or ()]
    if usage:
        rows = [(str(u.get("name")), str(u.get("unit")), number(u.get("value")), _limit(u), _share(u)) for u in usage]
        parts.append("Budgets of the design:\n\n" + markdown_table(("budget", "unit", "used", "limit", "used of it"), rows, left=2))
    parts.extend(_differences(design, config))
    kept = [_of(line) for line in export.get("budgets") or ()]
    if kept:
        rows = [
            (
                str(k.get("name")),
                str(k.get("unit")),
                number(k.get("value")),
                _bound(k.get("limit"), k.get("at_least") is True),
                f"**{k.get('verdict')}**",
            )
            for k in kept
        ]
        parts.append(
            "What the network in this folder has of them. Values are measured on it; those called predicted are a cost model's, "
            "since a network alone cannot show them:\n\n"
            + markdown_table(("budget", "unit", "network", "limit", "verdict"), rows, left=2)
        )
    parts.append(
        "The objective is a model of what the network can express, not of any benchmark: what it learned is measured below."
    )
    return "\n\n".join(parts)


def _limit(usage: Record) -> str:
    below = "at_least" in usage
    return _bound(usage["at_least"] if below else usage.get("upper"), below)


def _bound(value: Any, from_below: bool) -> str:
    return f"{'≥' if from_below else '≤'} {number(value)}"


def _share(usage: Record) -> str:
    value, bound = usage.get("value"), usage.get("upper", usage.get("at_least"))
    return f"{value / bound:.2%}" if isinstance(value, int | float) and isinstance(bound, int | float) and bound else "-"


def _differences(design: Record, config: PreTrainedConfig) -> list[str]:
    """A sentence where the network is not the design that is proved: a smaller vocabulary, say."""
    architecture = architecture_of(config)
    if architecture is None or not design.get("architecture"):
        return []
    differing = differences(Architecture.from_dict(design["architecture"]), architecture)
    if not differing:
        return []
    return [f"**The network is not quite the design that is proved:** {'; '.join(differing)}. The numbers above are the design's."]


def shipping_section(shipped: Record) -> str:
    """Promised, predicted and measured: what ship.json says of the artefact in its runtime; empty if there isn't one."""
    if not shipped:
        return ""
    facts = [(str(fact.get("name")), str(fact.get("value"))) for fact in map(_of, shipped.get("facts") or ())]
    parts = ["## What was shipped", markdown_table(("", ""), facts, left=2)]
    kept = [_of(line) for line in shipped.get("budgets") or ()]
    if kept:
        rows = [
            (
                str(k.get("name")),
                str(k.get("unit")),
                _bound(k.get("limit"), k.get("at_least") is True),
                number(k.get("predicted")),
                number(k.get("measured")),
                f"**{k.get('verdict')}**",
                str(k.get("remark") or ""),
            )
            for k in kept
        ]
        header = ("budget", "unit", "promised", "predicted", "measured", "verdict", "remark")
        parts.append(
            "Promised is the design's limit, predicted what its cost model says of this network, measured what the artefact showed:"
            "\n\n" + markdown_table(header, rows, left=2)
        )
    return "\n\n".join(parts)


def size_section(config: PreTrainedConfig, forms: Sequence[Record]) -> str:
    """Parameters, FLOPs and files, and how far the forms in the folder are from PyTorch."""
    parameters = parameters_of(config)
    longest = positions_of(config) or 1024
    lengths = sorted({min(length, longest) for length in (128, 1024)})
    rows = [("parameters, tied and shared ones once", f"{parameters:,}"), ("float32 weights", f"{4 * parameters / 1e6:,.1f} MB")]
    for length in lengths:
        for head in (True, False):
            part = "" if head else ", without the output head"
            rows.append((f"FLOPs of a forward pass over {length:,} tokens{part}", f"{forward_flops(config, length, head=head):,}"))
    parts = [
        "## Size and work",
        markdown_table(("", ""), rows),
        "2 FLOPs per multiply-add, matrix products only, attention without causal halving.",
    ]
    written = [
        (
            str(form.get("form")),
            str(form.get("weights")),
            f"`{form.get('folder')}`",
            differences_text(_object(form, "differences")),
            f"{form.get('bytes', 0) / 1e6:,.1f} MB",
        )
        for form in forms
    ]
    if written:
        parts.append(
            "Forms in this folder, and by how much they differ from PyTorch in float32. Graphs (onnx, openvino): largest absolute "
            "difference of a logit. Runtimes: largest difference of a log-probability (`score`, nat), its mean (`loss`, nat per "
            "token), and by how much the most probable token exceeds the one that was written (`greedy`, nat). `relative` is a "
            "root mean square:\n\n" + markdown_table(("form", "weights", "folder", "difference", "size"), written, left=4)
        )
    return "\n\n".join(parts)


def training_section(training: Record) -> str:
    """How the network was trained, as far as training.json tells."""
    if not training:
        return ""
    plan, data, result = (_object(training, name) for name in ("plan", "data", "result"))
    provenance = _object(training, "provenance")
    held_out = result.get("held_out_loss")
    optimizer = "Muon and AdamW" if plan.get("optimizer") == "muon" else "AdamW"
    facts = [
        ("optimizer steps", result.get("steps", plan.get("steps"))),
        ("tokens trained on", result.get("tokens")),
        ("sequences a step, tokens a sequence", _pair(plan.get("batch"), plan.get("seq_len"))),
        (f"{optimizer}: learning rate, weight decay", _pair(plan.get("learning_rate"), plan.get("weight_decay"))),
        ("precision", plan.get("precision")),
        ("seed", plan.get("seed")),
        ("sequences to train on, held out", _pair(data.get("training"), data.get("held_out"))),
        ("vocabulary", data.get("vocabulary")),
        ("text (SHA-256)", data.get("text_sha256")),
        ("training loss at the end [nat per token]", _rounded(result.get("training_loss"))),
        ("held-out loss [nat per token]", _rounded(held_out)),
        ("held-out perplexity per token", _rounded(math.exp(held_out)) if isinstance(held_out, int | float) else None),
        ("seconds in training steps", _rounded(result.get("seconds"), 1)),
        ("tokens per second", _rounded(result.get("tokens_per_s"), 0)),
        ("machine", provenance.get("machine")),
        ("versions", ", ".join(f"{name} {version}" for name, version in _object(provenance, "versions").items()) or None),
        ("command", f"`{provenance['command']}`" if provenance.get("command") else None),
    ]
    rows = [(name, number(value)) for name, value in facts if value is not None]
    return "## Training\n\n" + (markdown_table(("", ""), rows, left=2) if rows else "Nothing is recorded.")


def _pair(first: Any, second: Any) -> str | None:
    return None if first is None or second is None else f"{number(first)}, {number(second)}"


def _rounded(value: Any, digits: int = 4) -> Any:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else value


def _object(record: Any, name: str) -> Record:
    """The object under a key; empty if there isn't one."""
    return _of(record.get(name)) if isinstance(record, dict) else {}


def _of(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def evaluation_section(evaluation: Record) -> str:
    """Perplexities and zero-shot accuracies of evaluate.json, with the conventions they were measured by."""
    models = [_of(model) for model in evaluation.get("models") or ()]
    parts = []
    for model in models:
        texts = [_of(text) for text in model.get("texts") or ()]
        tasks = [_of(task) for task in model.get("tasks") or ()]
        if len(models) > 1 and (texts or tasks):
            parts.append(f"### {model.get('name', 'model')}")
        if texts:
            parts.append(_perplexities(texts))
        if tasks:
            parts.append(_accuracies(tasks, model.get("mean_accuracy")))
    if not parts:
        return ""
    conventions = [f"- {line}" for lines in _object(evaluation, "conventions").values() for line in lines]
    if conventions:
        parts.append("Conventions:\n\n" + "\n".join(conventions))
    return "\n\n".join(("## Evaluation", *parts))


def _perplexities(texts: Sequence[Record]) -> str:
    columns = ("token_perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
    rows = [
        (
            str(text.get("variant") or text.get("text")),
            f"{text.get('context', '-')}/{text.get('stride', '-')}",
            *(_rounded(text[column]) if text.get(column) is not None else "-" for column in columns),
        )
        for text in texts
    ]
    return markdown_table(("text", "context/stride", "token ppl", "word ppl", "byte ppl", "bits/byte"), rows)


def _accuracies(tasks: Sequence[Record], mean: Any) -> str:
    rows = [
        (
            str(task.get("task")),
            *(_rounded(task[name], 3) if task.get(name) is not None else "-" for name in ("acc", "acc_stderr", "acc_norm")),
            f"{number(task.get('examples'))} of {number(task.get('complete'))}",
        )
        for task in tasks
    ]
    table = markdown_table(("zero-shot task", "accuracy", "standard error", "acc_norm", "examples"), rows)
    return table if mean is None else f"{table}\n\nMean accuracy over {counted(len(tasks), 'task')}: {_rounded(mean, 3)}."


def limitations_section(training: Record, evaluation: Record) -> str:
    """What the model is not good for, and what is not known about it."""
    lines = [
        "It is a small model that continues text. It states falsehoods fluently, repeats itself, and has not been taught to follow "
        "instructions or to refuse any.",
        "What its training text says, and leaves out, its output reflects; it has not been examined for bias, nor for text learned "
        "by heart.",
        "It continues text of the kind and the languages it was trained on, and nothing beyond its positions.",
        "No licence of the weights is stated here: it depends on the training text, so name one before publishing them.",
    ]
    if not training:
        lines.insert(0, "How it was trained is not recorded in this folder.")
    if not evaluation.get("models"):
        lines.insert(0, "It has not been evaluated as far as this folder tells; `python -m merino_net.evaluate` does.")
    return "## Limitations\n\n" + "\n".join(f"- {line}" for line in lines)
