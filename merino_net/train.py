"""From a design and a text to a trained network, in one command that can be stopped at any time.

    python -m merino_net.train design.json --steps 300             a small design on Python's documentation: no file, no network
    python -m merino_net.train design.json --text books/ notes.jsonl.xz --output results/mine
    python -m merino_net.train MeRino-52M --text hub:Salesforce/wikitext/wikitext-103-raw-v1 --tokenizer openai-community/gpt2
    torchrun --nproc-per-node 4 -m merino_net.train design.json --text books/ --processes 4
    python -m merino_net.train design.json --text pile.jsonl.xz --recipe paper --device-batch 16 --compile
    python -m merino_net.train design.json --text books/ --schedule wsd --steps 2000 --output results/short
    python -m merino_net.train design.json --text books/ --schedule wsd --steps 8000 --going-on-from results/short

A run that was stopped goes on with the same command. The network lands in the output folder, ready for from_pretrained,
merino_net.generate, merino_net.evaluate and merino_net.export. What a run does is `merino_net.training.run`; here the command line
becomes a network, a tokenizer and packed sequences.

The network has the design's vocabulary, and so has the tokenizer that is trained on the text. A network that exceeds a budget of
the design is not trained.

Exit code: 0 trained; 2 a mistake in the command or a file that cannot be read; 3 the network exceeds a budget of its design; 130
Ctrl-C, and the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.architecture import Architecture, positive_integer
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command, run_command
from formulation.command.words import counted
from formulation.family import family_of
from formulation.published import read_architecture
from formulation.records.files import cache_folder, hold_folder, replace_file, writable_folder, write_json
from formulation.records.provenance import provenance
from merino_net.corpus.text import Reading, Text, add_reading_arguments
from merino_net.network.registration import require_network

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from merino_net.corpus.data import Sequences
    from merino_net.shipping.promises import Outcome
    from merino_net.training.run import TrainingPlan


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    architecture = design = read_architecture(options.design)
    if options.vocabulary is not None:
        architecture = dataclasses.replace(architecture, vocabulary=options.vocabulary)
    if options.threads is not None:
        positive_integer("threads", options.threads)
    if options.processes is not None:
        positive_integer("processes", options.processes)

    require_network()
    from merino_net.training.allocator import keep_memory

    keep_memory()
    import torch

    from merino_net.network.configuration_merino import MerinoConfig
    from merino_net.shipping.promises import Made, differences, exit_code, read_promises, table
    from merino_net.training.run import check_processes, train

    if options.threads:
        torch.set_num_threads(options.threads)
    plan = _plan(vars(options))
    if plan.seq_len > architecture.positions:
        raise ValueError(
            f"a sequence of {plan.seq_len} is longer than the design's {architecture.positions} positions; use --sequence"
        )
    processes = check_processes(options.processes, plan)
    network = {
        "hidden_act": options.activation or family_of(architecture.family).activation,
        "initializer_range": options.sigma,
        "dropout": options.dropout,
        "attention_dropout": options.dropout,
    }
    # A mistake in it, and a budget that it exceeds, are said before the text is read.
    planned = Made.planned(MerinoConfig.from_architecture(architecture, **network))
    promises = read_promises(Path(options.design))
    outcomes = [promise.outcome(planned) for promise in promises]
    if any(one.exceeds for one in outcomes):
        return _refused(outcomes, design, architecture, processes.is_main_process)
    if unknown := [one.name for one in outcomes if one.value is None and architecture.vocabulary > design.vocabulary]:
        raise ValueError(
            f"the budget on {unknown[0]} was proved for a vocabulary of {design.vocabulary:,} and is not known for one of "
            f"{architecture.vocabulary:,}; leave --vocabulary out, or design again in a space with that vocabulary"
        )
    folder = writable_folder(options.output)
    if processes.is_main_process:
        hold_folder(folder)
    reading = Reading.of(options.text_field, options.text_format, options.text_memory)
    text = Text(tuple(options.text), options.documents, reading)
    separate = Text(tuple(options.held_out_text), options.documents, reading) if options.held_out_text else None
    with processes.main_process_first():
        tokenizer = _tokenizer(options.tokenizer, text, architecture.vocabulary, folder)
        training, held_out, identity = _data(text, separate, tokenizer, plan, options.held_out, Path(options.cache))
    config = MerinoConfig.from_architecture(
        architecture,
        **network,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if processes.is_main_process:
        _introduce(architecture, training, held_out, plan, processes.num_processes)
        if differing := differences(design, architecture):
            print(f"the network differs from the design: {'; '.join(differing)}", flush=True)
    result = train(
        config,
        training,
        held_out,
        plan,
        folder,
        identity=identity,
        tokenizer=tokenizer,
        fresh=options.fresh,
        going_on_from=None if options.going_on_from is None else Path(options.going_on_from),
        peak_flops_per_s=None if options.peak_tflops is None else options.peak_tflops * 1e12,
    )
    if processes.is_main_process:
        made = Made.stored(folder)
        outcomes = [promise.outcome(made) for promise in promises]
        _finish(Path(options.design), architecture, plan, folder, outcomes)
        peak = "a plain matrix product" if options.peak_tflops is None else "--peak-tflops"
        print(
            f"held-out loss {result.held_out_loss:.4f} nat per token (perplexity {result.held_out_perplexity:.2f}, "
            f"{result.held_out_sequences:,} sequences) after {result.tokens:,} tokens; {result.tokens_per_s:,.0f} tokens/s, "
            f"{result.mfu:.0%} of the {result.peak_flops_per_s / 1e12:.3g} TFLOP/s of {peak}\nthe network is in {folder}"
        )
        if outcomes:
            print(f"\n{table(outcomes)}", flush=True)
        return exit_code(outcomes)
    return ExitCode.DONE


def _refused(outcomes: Sequence[Outcome], design: Architecture, architecture: Architecture, shown: bool) -> int:
    """Say which budgets a network would exceed, and what to do; the exit code."""
    from merino_net.shipping.promises import exit_code

    if shown:
        exit_code(outcomes)
        cause = "leave --vocabulary out, or design again in a space with that vocabulary"
        if architecture == design:
            cause = "the design file does not keep its own budgets: design again"
        print(f"nothing was trained; {cause}", file=sys.stderr)
    return ExitCode.BROKEN_PROMISE


def _introduce(architecture: Architecture, training: Sequences, held_out: Sequences, plan: TrainingPlan, processes: int) -> None:
    epochs = plan.steps * plan.batch / len(training)
    print(f"design {architecture}, vocabulary {architecture.vocabulary:,}, {counted(processes, 'process', 'processes')}")
    print(
        f"{len(training) * plan.seq_len:,} tokens to train on, {len(held_out) * plan.seq_len:,} held out; {plan.steps:,} steps of "
        f"{plan.tokens_per_step:,} tokens are {epochs:.2g} passes",
        flush=True,
    )


def _finish(design: Path, architecture: Architecture, plan: TrainingPlan, folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Put the design, what became of its budgets, and where all comes from beside the network."""
    from merino_net.training.run_folder import RESULT

    if design.is_file() and design.resolve() != (folder / "design.json").resolve():
        with replace_file(folder / "design.json") as file:
            file.write(design.read_bytes())
    path = folder / RESULT
    record = json.loads(path.read_text(encoding="utf-8"))
    if "provenance" not in record:
        record["architecture"] = architecture.to_dict()
        record["budgets"] = [outcome.to_dict() for outcome in outcomes]
        record["provenance"] = provenance(plan.seed, ("torch", "transformers", "accelerate", "tokenizers"))
        write_json(path, record)


_PLANNED = (
    "steps",
    "batch",
    "learning_rate",
    "schedule",
    "decay",
    "optimizer",
    "warm_up",
    "rate_width",
    "repeat_exponent",
    "documents_apart",
    "weight_decay",
    "clip",
    "device_batch",
    "logits_at_a_time",
    "precision",
    "compile",
    "checkpointing",
    "log_every",
    "evaluate_every",
    "save_every",
    "evaluate_at_most",
    "keep",
    "seed",
)
"""Fields of the `TrainingPlan` that have a flag of the same name."""


def _plan(flags: Mapping[str, Any]) -> TrainingPlan:
    """The plan of a recipe with what the flags change: None and False leave the recipe's own."""
    from merino_net.training.run import TrainingPlan

    given = {"seq_len": flags["sequence"], **{name: flags[name] for name in _PLANNED}}
    changes = {name: value for name, value in given.items() if value is not None and value is not False}
    return TrainingPlan.paper(**changes) if flags["recipe"] == "paper" else TrainingPlan(**changes)


def _tokenizer(name: str | None, text: Text, vocabulary: int, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer named, or the one that this run trained before, or one trained on the text now; kept in the run's folder."""
    from merino_net.corpus.data import kept_tokenizer, load_tokenizer

    if name is not None:
        tokenizer = load_tokenizer(name)
        if len(tokenizer) != vocabulary:
            raise ValueError(
                f"the tokenizer {name} has {len(tokenizer):,} tokens and the design {vocabulary:,}; "
                f"--vocabulary {len(tokenizer)} gives the design that many"
            )
        return tokenizer
    return kept_tokenizer(text, vocabulary, folder / "tokenizer")


def _data(
    text: Text, separate: Text | None, tokenizer: PreTrainedTokenizerBase, plan: TrainingPlan, share: float, cache: Path
) -> tuple[Sequences, Sequences, dict[str, Any]]:
    """The sequences to train on, those held out (a `share` where there is no separate text), and what distinguishes them."""
    from merino_net.corpus.data import Sequences, packed, split, token_array

    rows = packed(token_array(text, tokenizer, cache), plan.seq_len)
    identity: dict[str, Any] = {
        "text_sha256": text.fingerprint(),
        "tokenizer_sha256": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "vocabulary": len(tokenizer),
        "tokens": rows.size,
    }
    if separate is not None:
        others = packed(token_array(separate, tokenizer, cache), plan.seq_len)
        return Sequences(rows), Sequences(others), {**identity, "held_out_text_sha256": separate.fingerprint()}
    trained, held_out = split(len(rows), share, plan.seed)
    return Sequences(rows, trained), Sequences(rows, held_out), {**identity, "held_out_share": share}


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "design", metavar="DESIGN", help="a design.json, an architecture's JSON file, or the name of a published design"
    )
    parser.add_argument("--output", default="results/train", metavar="FOLDER", help="folder of the run (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="start over where the output folder holds a run")

    data = parser.add_argument_group("text")
    data.add_argument(
        "--text",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="files (plain, .json, .jsonl, .ndjson, .csv, .tsv, .parquet; all but the last also .gz, .xz, .bz2, .zst), folders of "
        "them, or hub:OWNER/NAME[/CONFIG][@SPLIT] (default: Python's documentation)",
    )
    add_reading_arguments(data)
    data.add_argument("--documents", type=int, metavar="N", help="take this many documents at most")
    data.add_argument(
        "--held-out", type=float, default=0.02, metavar="SHARE", help="share of sequences held out (default: %(default)s)"
    )
    data.add_argument("--held-out-text", nargs="+", metavar="SOURCE", help="hold out this text, and no share of the other")
    data.add_argument(
        "--vocabulary", type=int, metavar="N", help="tokens, instead of the design's; refused where a budget would be exceeded"
    )
    data.add_argument(
        "--tokenizer", metavar="NAME", help="a folder, tokenizer.json or hub name (default: byte-level BPE of the text)"
    )
    data.add_argument("--sequence", type=int, metavar="TOKENS", help="length of a packed sequence (default: 256; paper: 1024)")
    data.add_argument(
        "--documents-apart",
        action="store_true",
        help="documents of a sequence do not see each other, and each begins at position 0",
    )
    data.add_argument("--cache", default=str(cache_folder()), metavar="FOLDER", help="of the tokens (default: ~/.cache/merino)")

    plan = parser.add_argument_group("training")
    plan.add_argument("--recipe", choices=("small", "paper"), default="small", help="defaults of the flags below (default: small)")
    plan.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: 1,000; paper: 600,000)")
    plan.add_argument(
        "--batch", type=int, metavar="N", help="sequences per step, all processes together (default: 32; paper: 1,024)"
    )
    plan.add_argument(
        "--device-batch", type=int, metavar="N", help="sequences at a time in a process; the rest accumulates (default: all)"
    )
    plan.add_argument(
        "--logits-at-a-time",
        type=int,
        metavar="TOKENS",
        help="whose logits are computed together: less memory where the vocabulary is large, more time (default: all)",
    )
    plan.add_argument(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="at its highest (default: 6e-4, the paper's for AdamW)",
    )
    plan.add_argument(
        "--rate-width",
        type=int,
        metavar="WIDTH",
        help="of the design for which the learning rate was found: wider maps learn more slowly (default: one rate for all)",
    )
    plan.add_argument(
        "--schedule",
        choices=("linear", "wsd"),
        help="of the learning rate after the warm-up: decaying all the time, or stable and then decaying (default: linear)",
    )
    plan.add_argument(
        "--decay", type=int, metavar="STEPS", help="of a decaying learning rate at the end of wsd (default: a fifth of the steps)"
    )
    plan.add_argument(
        "--going-on-from",
        metavar="FOLDER",
        help="of a shorter run with --schedule wsd: begin where its decay began, with the same losses as if it had never decayed",
    )
    plan.add_argument(
        "--optimizer", choices=("adamw", "muon"), help="muon: for the matrices inside, adamw for the rest (default: adamw)"
    )
    plan.add_argument(
        "--warm-up",
        type=int,
        metavar="STEPS",
        help="of a rising learning rate (default: the paper's 1,000, at most a tenth of the steps)",
    )
    plan.add_argument("--weight-decay", type=float, metavar="RATE", help="of matrices, decoupled from the gradient (default: 0.1)")
    plan.add_argument(
        "--repeat-exponent",
        type=float,
        metavar="A",
        help="what a layer adds that is applied L times is scaled by 1/L^A, with A from 0 to 1 (default: 0)",
    )
    plan.add_argument("--clip", type=float, metavar="NORM", help="largest gradient norm (default: 1.0)")
    plan.add_argument("--seed", type=int, metavar="N", help="of weights, data order, dropout, held-out split (default: 0)")
    plan.add_argument("--log-every", type=int, metavar="STEPS", help="between lines of the log (default: 10; paper: 100)")
    plan.add_argument("--evaluate-every", type=int, metavar="STEPS", help="between evaluations (default: 100; paper: 5,000)")
    plan.add_argument("--evaluate-at-most", type=int, metavar="N", help="held-out sequences evaluated (default: 512)")
    plan.add_argument("--save-every", type=int, metavar="STEPS", help="between checkpoints (default: 100; paper: 5,000)")
    plan.add_argument("--keep", type=int, metavar="N", help="checkpoints kept (default: 2)")

    network = parser.add_argument_group("network")
    network.add_argument("--dropout", type=float, default=0.0, metavar="P", help="probability (default: %(default)s)")
    network.add_argument(
        "--sigma", type=float, default=0.02, metavar="S", help="standard deviation of the initial weights (default: %(default)s)"
    )
    network.add_argument(
        "--activation", metavar="NAME", help="of the feed-forward network: relu, gelu, silu, ... (default: the family's own)"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument("--precision", choices=("bf16", "float32"), help="number format (default: bf16 autocast, float32 weights)")
    machine.add_argument("--compile", action="store_true", help="torch.compile: worth its start-up in long runs")
    machine.add_argument("--checkpointing", action="store_true", help="recompute activations instead of keeping them")
    machine.add_argument("--processes", type=int, metavar="N", help="fail unless N processes take part; start them with torchrun")
    machine.add_argument("--threads", type=int, metavar="N", help="of PyTorch on the CPU (default: its own choice)")
    machine.add_argument(
        "--peak-tflops",
        type=float,
        metavar="TFLOPS",
        help="TFLOP/s of one device, for the utilisation (default: a matrix product, measured)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
