"""The front door: `merino`, one command over all commands of the house, each of which stays `python -m MODULE` as well.

    merino design --space fine --budget flops=60e9 --budget params=55e6
    python -m studies.front_door design --space fine --budget flops=60e9 --budget params=55e6

A table says which module each command is. Its `main` gets the rest of the line, its `command_line` is the help, and its exit code
is the exit code. Until a command is known nothing but the standard library is imported, so that `merino --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from merino_packages import start

PROGRAM = "python -m studies.front_door" if __name__ == "__main__" else "merino"
"""What was typed to come here."""

EXPERIMENTS, STUDY = "experiments", "study"
"""The group of the experiments, and the word before the name of each."""

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "design": {
        "design": ("studies.design", "the best architecture for your budgets, its proof and its prices"),
        "choose": ("studies.choose", "the best option for each position of a table of scores and costs"),
        "pareto": ("studies.pareto", "the whole exact front of entropy against costs"),
        "compare": ("studies.compare_solvers", "every solver on the same problems"),
        "cost": ("studies.cost", "parameters, FLOPs, bytes and latency of any model"),
    },
    "train and ship": {
        "train": ("merino_net.train", "from a design and a text to a trained network"),
        "evaluate": ("merino_net.evaluate", "perplexity and zero-shot accuracy of networks"),
        "generate": ("merino_net.generate", "text that a network writes"),
        "quantize": ("merino_net.quantize", "a network in 8 or 4 bits: rounding, GPTQ or OpenVINO"),
        "export": ("merino_net.export", "a hub folder, and forms for llama.cpp, ONNX, OpenVINO, ExecuTorch"),
        "ship": ("studies.ship", "an artefact in its runtime, measured against the design's budgets"),
    },
    "measure": {
        "profile": ("hardware_models.profile", "the latency table of this machine"),
        "calibrate": ("hardware_models.calibration", "what software achieves of a datasheet's figures"),
    },
    EXPERIMENTS: {
        "hardware": ("studies.hardware", "how the optimum moves from device to device"),
        "latency_check": ("studies.latency_check", "whether a device file's predictions hold"),
        "latency_data": ("studies.latency_data", "an additive model of latencies that others measured"),
        "scaling": ("studies.scaling", "time to proof and loss as problems grow"),
        "exact_methods": ("studies.exact_methods", "what exact methods need for their proofs, and for whole fronts"),
        "entropy_table": ("studies.entropy_table", "the entropy's look-up table against its closed form"),
        "proxy_correlation": ("studies.proxy_correlation", "whether proxies rank designs as training does"),
        "calibration": ("studies.calibration", "what the parameters of the entropy have to be"),
        "ablation": ("studies.ablation", "each part of the method switched off, and trained"),
        "baselines": ("studies.baselines", "designs of equal FLOPs chosen in several ways"),
        "zero_shot": ("studies.zero_shot", "the paper's accuracies beside those of your models"),
        "quantization": ("studies.quantization", "what 8 and 4 bits save and cost"),
        "recipes": ("studies.recipes", "what each part of the training recipe does to the loss"),
        "net_speed": ("studies.net_speed", "speed of designs beside GPT-2, Llama and OPT"),
        "llama_cpp": ("studies.llama_cpp", "designs in llama.cpp: agreement with PyTorch, and speed"),
        "report": ("studies.report", "each claim of the paper, and what the results say"),
        "pack_results": ("studies.pack_results", "rows and pictures of kept results, made smaller"),
    },
    "shell": {
        "completion": ("studies.completion", "completion of commands, flags and files in bash, zsh and fish"),
    },
}
"""Group -> name of a command -> its module, and in one line what it gives."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    f"{STUDY} {name}" if group == EXPERIMENTS else name: command
    for group, commands in GROUPS.items()
    for name, command in commands.items()
}
"""All commands as they are typed: `design`, `study ablation`."""

_DESCRIPTION = """\
Design small language models by mathematical programming: from a search space and
budgets to the best architecture, with a proof; then measure, train and ship it."""

_EXAMPLES = f"""\
examples:
  {PROGRAM} design --budget flops=60e9 --budget params=55e6
      at most 60 GFLOPs for a forward pass of 1,024 tokens, and 55 million parameters
  {PROGRAM} profile --name my-laptop
      times networks on this machine and writes my-laptop.json
  {PROGRAM} design --budget latency@my-laptop.json=50
      at most 50 ms for a query as it was timed there, of 128 tokens

{PROGRAM} COMMAND --help shows the flags of a command with their units, and examples.

exit codes, of every command:
    0  done
    1  proved infeasible: no design meets the budgets
    2  a mistake in the command, or something it names is wrong or missing
    3  a promise is broken: a budget is exceeded, or a proof does not hold
    4  a limit (time, memory) ended it without an answer
   70  a fault of ours, with a traceback for the report
  130  ended by Ctrl-C
  141  nobody reads the standard output: it is closed, or its reader has left"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the words name; returns the exit code, or exits with it once the command is known."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    study = words[:1] == [STUDY]
    if study:
        words = words[1:]
    if not words or words[0].startswith("-"):
        parser = study_line() if study else command_line()
        parser.parse_args(words[:1])
        parser.print_help()
        return 0
    name = f"{STUDY} {words[0].replace('-', '_')}" if study else words[0]
    if name in COMMANDS:
        _start(name, words[1:])
    print(f"error: unknown command {name!r}{_hint(words[0])} ({PROGRAM} --help lists all commands)", file=sys.stderr)
    return 2  # ExitCode.MISTAKE, which would import numpy


def command_line() -> argparse.ArgumentParser:
    """What can be typed without a command; its help lists all commands by group."""
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s COMMAND [ARGUMENT ...]",
        description="\n\n".join((_DESCRIPTION, *map(_listed, GROUPS))),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"merino {version('merino')}")
    return parser


def study_line() -> argparse.ArgumentParser:
    """What can be typed between `study` and the name of an experiment."""
    return argparse.ArgumentParser(
        prog=f"{PROGRAM} {STUDY}",
        usage="%(prog)s NAME [ARGUMENT ...]",
        description=f"Repeat an experiment; each writes to results/NAME.\n\n{_listed(EXPERIMENTS)}",
        epilog=f"{PROGRAM} {STUDY} NAME --help shows the flags of an experiment with their units, and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _listed(group: str) -> str:
    """A group's commands, a line each."""
    width = max(len(name) for commands in GROUPS.values() for name in commands)
    title = f"{group} ({PROGRAM} {STUDY} NAME)" if group == EXPERIMENTS else group
    return "\n".join((f"{title}:", *(f"  {name:{width}}  {gives}" for name, (_, gives) in GROUPS[group].items())))


def _hint(word: str) -> str:
    """Which command is nearest to what was typed, if one is near; modules go by their own names too."""
    import difflib

    known = {module.rpartition(".")[2]: name for name, (module, _) in COMMANDS.items()}
    known |= {name.rpartition(" ")[2]: name for name in COMMANDS}
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {PROGRAM} {known[near[0]]}?" if near else ""


def _start(name: str, arguments: Sequence[str]) -> NoReturn:
    """Hand over to a command's module, whose help then goes by the name that was typed."""
    start(COMMANDS[name][0], arguments, {module: f"{PROGRAM} {typed}" for typed, (module, _) in COMMANDS.items()})


if __name__ == "__main__":
    sys.exit(main())
