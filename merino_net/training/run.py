"""Training a network on packed sequences: the plan, the run with its log and checkpoints, and its result.

Stands on transformers' Trainer (optimizer, precision, accumulation, several processes, checkpoints). What is added here is
what a run promises beyond it: a run that was killed goes on by itself and with the same losses, a checkpoint cut short is
never taken for a whole one, every figure of the log says what it counts. Where text and designs come from is `merino_net.train`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from accelerate import PartialState
from safetensors import SafetensorError
from torch.utils.data import Subset
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from formulation.architecture import positive_integer
from formulation.records.files import save_figure, write_json
from formulation.records.rows import Row, RowFile
from merino_net.corpus.data import Sequences, save_tokenizer
from merino_net.network.configuration_merino import MerinoConfig
from merino_net.network.counting import forward_flops, matmul_flops_per_s, parameter_count
from merino_net.network.plain import plain_form
from merino_net.network.pretrained import load_weights, positions_of, quieten
from merino_net.training.bf16_products import multiplies_bf16, widened_products
from merino_net.training.optimizer import OptimizerPlan, make_optimizer, scale_repeated
from merino_net.training.run_folder import (
    RESULT,
    begin_from,
    check_room,
    keep_stable,
    mark_complete,
    newest_complete,
    owned,
    run_in,
    stable_checkpoint,
    step_of,
)

PAPER_LEARNING_RATE = 6e-4
PAPER_WARM_UP = 1000
PAPER_STEPS = 600_000
PAPER_BATCH = 1024
PAPER_SEQ_LEN = 1024
"""Training of the published models (MeRino, experiments): AdamW, linear decay, the Pile, 8 H100."""

_BYTES_PER_PARAMETER = 12
"""A checkpoint: float32 weights and AdamW's two moments."""


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. Learning rate and warm-up are the paper's, AdamW's other settings are GPT-3's (the paper names none).

    Attributes:
        steps: optimizer steps.
        batch: sequences per step, over all processes.
        seq_len: tokens per sequence.
        learning_rate: reached after the warm-up; its factor for each tensor is in `optimizer`.
        warm_up: steps of linear increase; None: the paper's 1,000, but at most a tenth of the steps.
        optimizer: "adamw", the paper's, or "muon": Muon for the matrices inside, AdamW for the rest (see `optimizer`).
        beta1: AdamW's decay rate of the mean gradient.
        beta2: AdamW's decay rate of the squared gradient.
        weight_decay: decoupled; of matrices, not of embeddings, positions, norms and biases.
        schedule: "linear": decaying to 0 from the end of the warm-up on; "wsd": stable, then decaying linearly to 0 in the last
            `decay` steps (Hu et al. 2024, "MiniCPM"), so that a longer run can go on from the end of the stable part.
        decay: steps of the decay of "wsd"; None: a fifth of them.
        rate_width: the width for which the learning rate was found, see `optimizer.TrainedTensor.factor`; None: one rate for all.
        repeat_exponent: α; what a layer adds that its block applies L times is scaled by L^−α.
        decayed: "matrices", or "all" that is no bias or norm.
        attention_parts: whether Muon takes query, key and value apart where they are stored as one matrix.
        documents_apart: whether documents of a sequence do not see each other: positions begin again, attention is masked.
        clip: largest gradient norm.
        device_batch: sequences at a time in each process; None: all of the process's share. Less memory, same result.
        logits_at_a_time: tokens whose logits are computed at a time, and again in the backward pass; None: all of `device_batch`.
            Less memory where the vocabulary is large, more time.
        precision: "bf16" (autocast; weights and optimizer stay float32) or "float32".
        compile: whether to use torch.compile.
        checkpointing: whether to recompute activations in the backward pass.
        log_every: steps between rows of the log.
        evaluate_every: steps between held-out losses, a multiple of `log_every`, so that a resumed run logs the same rows.
        save_every: steps between checkpoints, also a multiple of `log_every`.
        evaluate_at_most: held-out sequences that are evaluated, the first of them; rounded down to a multiple of the processes.
        keep: checkpoints kept, at least 2: while one is being written, only the one before is whole.
        seed: of the initial weights, of the order of the data and of dropout; below 2³².
    """

    steps: int = 1000
    batch: int = 32
    seq_len: int = 256
    learning_rate: float = PAPER_LEARNING_RATE
    warm_up: int | None = None
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    schedule: str = "linear"
    decay: int | None = None
    rate_width: int | None = None
    repeat_exponent: float = 0.0
    decayed: str = "matrices"
    attention_parts: bool = True
    documents_apart: bool = False
    clip: float = 1.0
    device_batch: int | None = None
    logits_at_a_time: int | None = None
    precision: str = "bf16"
    compile: bool = False
    checkpointing: bool = False
    log_every: int = 10
    evaluate_every: int = 100
    save_every: int = 100
    evaluate_at_most: int = 512
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "seq_len", "log_every", "evaluate_every", "save_every", "evaluate_at_most", "keep"):
            positive_integer(name, getattr(self, name))
        for name in ("evaluate_every", "save_every"):
            if getattr(self, name) % self.log_every:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a multiple of log_every, which is {self.log_every}")
        for name in ("device_batch", "logits_at_a_time", "rate_width"):
            if getattr(self, name) is not None:
                positive_integer(name, getattr(self, name))
        if self.warm_up is not None and not 0 <= self.warm_up <= self.steps:
            raise ValueError(f"warm_up is {self.warm_up}; expected at least 0 and at most the {self.steps} steps")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in ("beta1", "beta2", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0 and less than 1")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer is {self.optimizer!r}; expected adamw or muon")
        if self.schedule not in ("linear", "wsd"):
            raise ValueError(f"schedule is {self.schedule!r}; expected linear or wsd")
        if self.decay is not None and self.schedule != "wsd":
            raise ValueError(
                f"decay is {self.decay} and the schedule linear, which decays all the time; leave it out or choose wsd"
            )
        if self.schedule == "wsd" and not (
            self.warm_up_steps <= self.stable_steps < self.steps and self.stable_steps % self.log_every == 0
        ):
            raise ValueError(
                f"the decay begins at step {self.stable_steps}; expected a multiple of log_every, which is {self.log_every}, after "
                f"the {self.warm_up_steps} steps of warm-up and before the {self.steps} steps end"
            )
        if not 0 <= self.repeat_exponent <= 1:
            raise ValueError(f"repeat_exponent is {self.repeat_exponent}; expected at least 0 and at most 1")
        if self.decayed not in ("matrices", "all"):
            raise ValueError(f"decayed is {self.decayed!r}; expected matrices or all")
        if self.precision not in ("bf16", "float32"):
            raise ValueError(f"precision is {self.precision!r}; expected bf16 or float32")
        if self.keep < 2:
            raise ValueError("keep is 1; expected at least 2: while a checkpoint is being written, only the one before is whole")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected a whole number of at least 0 and less than 2^32")

    @classmethod
    def paper(cls, **changes: Any) -> TrainingPlan:
        """The plan of the published models: 600,000 steps of 1,024 sequences of 1,024 tokens."""
        scale = {"steps": PAPER_STEPS, "batch": PAPER_BATCH, "seq_len": PAPER_SEQ_LEN, "warm_up": PAPER_WARM_UP}
        schedule = {"log_every": 100, "evaluate_every": 5000, "save_every": 5000}
        return cls(**{**scale, **schedule, **changes})

    @property
    def warm_up_steps(self) -> int:
        """Steps of warm-up that the plan comes to."""
        return min(PAPER_WARM_UP, self.steps // 10) if self.warm_up is None else self.warm_up

    @property
    def decay_steps(self) -> int:
        """Steps of the decay of "wsd" that the plan comes to: the rows of the log before it are those of a longer run."""
        if self.decay is not None:
            return self.decay
        return self.steps - (self.steps - self.steps // 5) // self.log_every * self.log_every

    @property
    def stable_steps(self) -> int:
        """After how many steps the decay of "wsd" begins."""
        return self.steps - self.decay_steps

    @property
    def tokens_per_step(self) -> int:
        """batch · seq_len."""
        return self.batch * self.seq_len

    @property
    def optimizer_plan(self) -> OptimizerPlan:
        """What concerns the optimizer alone."""
        return OptimizerPlan(
            self.optimizer,
            self.learning_rate,
            (self.beta1, self.beta2),
            self.weight_decay,
            self.rate_width,
            self.repeat_exponent,
            self.decayed,
            self.attention_parts,
        )

    def accumulation(self, processes: int) -> tuple[int, int]:
        """(sequences at a time, times) that give each of `processes` its share of a step; ValueError if none is left over."""
        share, rest = divmod(self.batch, processes)
        if rest:
            raise ValueError(f"batch is {self.batch}, which {processes} processes do not divide; choose a multiple of {processes}")
        device_batch = self.device_batch or share
        if share % device_batch:
            raise ValueError(
                f"device_batch is {device_batch}, which does not divide the {share} sequences of a process; choose a divisor"
            )
        return device_batch, share // device_batch


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes:
        held_out_sequences: how many were evaluated, the first of those held out.
        held_out_loss: mean cross-entropy in nat per token over the held-out sequences evaluated, after the last step; a sequence's
            first token is context only.
        training_loss: the same over the steps since the row of the log before the last.
        tokens: tokens trained on.
        seconds: time spent in training steps by all sessions, evaluation and checkpoints left out.
        tokens_per_s: median over the rows of the log but the first, which includes the start-up.
        mfu: model-FLOPs utilisation: tokens_per_s · training FLOPs per token / `peak_flops_per_s` of all processes together.
    """

    steps: int
    parameters: int
    training_flops_per_token: float
    held_out_sequences: int
    held_out_loss: float
    training_loss: float
    tokens: int
    seconds: float
    tokens_per_s: float
    mfu: float
    peak_flops_per_s: float

    @property
    def held_out_perplexity(self) -> float:
        """exp(held_out_loss), per token."""
        return math.exp(self.held_out_loss)


def train(
    config: PreTrainedConfig,
    training: Sequences,
    held_out: Sequences,
    plan: TrainingPlan,
    folder: Path,
    *,
    identity: dict[str, Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    fresh: bool = False,
    going_on_from: Path | None = None,
    peak_flops_per_s: float | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a network of `config` from random weights in `folder`, or go on with the run that is there.

    A run that was stopped, even by SIGKILL, continues from its last whole checkpoint; on the same machine with the same number
    of threads and processes its losses are those of an undisturbed run, bit for bit on a CPU. Under `torchrun` every process
    calls this function; the losses equal those of one process up to rounding.

    It writes `log.jsonl` (a row per `log_every` steps and per held-out loss), `checkpoints/`, and at the end the network for
    `from_pretrained` (config.json, model.safetensors, tokenizer) and `training.json`. The network is saved in transformers' own
    class where that builds it (`merino_net.network.plain`), else with its code beside it.

    Args:
        config: of any causal language model of transformers, ours or a baseline.
        identity: what else tells this run from another (the data, say): kept in run.json and compared on resumption.
        tokenizer: saved beside the weights.
        fresh: start over where `folder` holds a run, once everything else has been found in order.
        going_on_from: the folder of a shorter run of the schedule "wsd", alike but for its steps and decay: this one begins where
            that one's decay did, and its losses are those of an undisturbed run.
        peak_flops_per_s: of one device; None: measured by a matrix product in the plan's precision.
        progress: whether a bar (on a terminal) and a line for each held-out loss are shown.

    Raises:
        ValueError: if `folder` holds another run, the plan does not fit the data, the run to go on from is another or the loss is
            no longer a number.
        OSError: if the disk is full.
    """
    quieten()
    if going_on_from is not None:
        plan = dataclasses.replace(plan, warm_up=_same_warm_up(going_on_from, plan))
    processes = check_processes(None, plan)
    config = copy.deepcopy(config)  # transformers writes into the configuration it is given
    device_batch, accumulation = plan.accumulation(processes.num_processes)
    _check_data(config, training, held_out, plan)
    if plan.documents_apart:
        training, held_out = (sequences.documents_apart(config.eos_token_id) for sequences in (training, held_out))
    evaluated, at_a_time = _evaluated(len(held_out), plan, processes.num_processes, device_batch)
    if peak_flops_per_s is not None and not 0 < peak_flops_per_s < math.inf:
        raise ValueError(f"the peak is {peak_flops_per_s:g} FLOP/s; expected a positive number")
    run = json.loads(
        json.dumps(
            {
                "plan": {**asdict(plan), "keep": None},
                "network": {name: value for name, value in config.to_diff_dict().items() if name != "transformers_version"},
                "data": {"training": len(training), "held_out": len(held_out), **(identity or {})},
                "processes": processes.num_processes,
            }
        )
    )
    start = None if going_on_from is None else stable_checkpoint(going_on_from, run, plan.stable_steps)
    with owned(folder, run, processes, fresh), widened_products(processes.device) if plan.precision == "bf16" else nullcontext():
        if (folder / RESULT).exists():
            return TrainingResult(**json.loads((folder / RESULT).read_text(encoding="utf-8"))["result"])
        checkpoints = folder / "checkpoints"
        if start is not None and processes.is_main_process:
            begin_from(start, folder)
        processes.wait_for_everyone()
        newest, damaged = newest_complete(checkpoints)
        torch.manual_seed(plan.seed)
        trained = newest is not None and step_of(newest) >= plan.steps  # stopped between the last step and the end
        if newest is None:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            scale_repeated(model, plan.repeat_exponent)
        else:  # the Trainer would read it as well, but go on with random numbers where weights are missing, and with NaN
            model = load_weights(newest, f"the checkpoint {newest}", torch.float32)
            if config._attn_implementation is not None:  # no file says it, and another one rounds otherwise
                model.set_attn_implementation(config._attn_implementation)
        if processes.is_main_process:
            if newest is not None and plan.schedule == "wsd" and step_of(newest) == plan.stable_steps:
                keep_stable(newest)
            for checkpoint in damaged:
                _say(progress, f"{checkpoint.name} was cut short and is removed")
                shutil.rmtree(checkpoint)
        processes.wait_for_everyone()
        if peak_flops_per_s is None:
            peak_flops_per_s = matmul_flops_per_s(processes.device, torch.bfloat16 if plan.precision == "bf16" else torch.float32)
        log = _Log(
            folder=folder,
            start=0 if newest is None else step_of(newest),
            plan=plan,
            flops_per_token=3 * forward_flops(config, plan.seq_len) / plan.seq_len,
            peak=peak_flops_per_s * processes.num_processes,
            held_out_sequences=evaluated,
            processes=processes,
            progress=progress and processes.is_main_process,
        )
        trainer = _Trainer(
            plan=plan,
            model=model,
            args=_arguments(plan, checkpoints, (device_batch, accumulation, at_a_time), cpu=processes.device.type == "cpu"),
            train_dataset=Subset(training, range(len(training) // plan.batch * plan.batch)),  # whole steps only
            eval_dataset=Subset(held_out, range(evaluated)),
            callbacks=[_Keeper(log)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if newest is not None:
            _say(log.progress, f"going on from step {step_of(newest)}")
        with log:
            if not trained:
                trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        result = log.result(parameter_count(model))
        _publish(trainer, tokenizer, folder, run, result)
        return result


def _same_warm_up(before: Path, plan: TrainingPlan) -> int:
    """Steps of warm-up of the run in the folder `before`; ValueError if the plan states others."""
    steps = TrainingPlan(**{**run_in(before)["plan"], "keep": 2}).warm_up_steps
    if plan.warm_up not in (None, steps):
        raise ValueError(f"warm_up is {plan.warm_up} and in the run in {before} it was {steps}; leave it out")
    return steps


def _check_data(config: PreTrainedConfig, training: Sequences, held_out: Sequences, plan: TrainingPlan) -> None:
    """ValueError if the sequences are not the plan's, or are too few or too long."""
    if len(training) < plan.batch:
        raise ValueError(f"there are {len(training)} sequences to train on, fewer than the {plan.batch} of one step; lower batch")
    for name, sequences in (("train on", training), ("hold out", held_out)):
        length = len(sequences[0]["input_ids"])
        if length != plan.seq_len:
            raise ValueError(f"the sequences to {name} have {length} tokens and the plan {plan.seq_len}; pack them to that length")
    if plan.logits_at_a_time is not None and config.model_type != MerinoConfig.model_type:
        raise ValueError(f"logits_at_a_time is for merino's networks, and this one is of type {config.model_type}; leave it out")
    positions = positions_of(config)
    if positions is not None and plan.seq_len > positions:
        raise ValueError(f"a sequence of {plan.seq_len} is longer than the network's {positions} positions; shorten it")


def check_processes(expected: int | None, plan: TrainingPlan) -> PartialState:
    """The processes that take part in this run; ValueError if they are not as many as the launcher or the user promised.

    Some launchers start one process where several were asked for and say nothing: a run must not go on as if it were several.
    """
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    options: dict[str, Any] = {} if gpu else {"cpu": True}
    if promised > 1:  # the others wait while one process makes tokens of a large text
        options |= {"timeout": timedelta(days=2), **({} if gpu else {"backend": "gloo"})}
    state = PartialState(**options)
    wanted = promised if expected is None else expected
    if not wanted == promised == state.num_processes:
        raise ValueError(
            f"{wanted} processes were asked for and {state.num_processes} take part; "
            f"start them with: torchrun --nproc-per-node {wanted} -m merino_net.train ..."
        )
    if state.num_processes == 1 and torch.cuda.device_count() > 1:
        raise ValueError(
            f"this machine has {torch.cuda.device_count()} GPUs and one process would train on all of them with a larger "
            "batch than planned; start one process for each with torchrun, or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    if plan.compile and plan.precision == "bf16" and not multiplies_bf16(state.device):
        raise ValueError(
            "this processor has no products of bfloat16 matrices, and what stands in for them cannot be compiled; "
            "train in float32 (--precision float32) or leave --compile out"
        )
    return state


def _evaluated(available: int, plan: TrainingPlan, processes: int, device_batch: int) -> tuple[int, int]:
    """How many of the held-out sequences are evaluated, and how many at a time in each process.

    Of several processes each gets full batches only, so that the mean over batches is that over tokens.
    """
    count = min(available, plan.evaluate_at_most) // processes * processes
    if count < 1:
        raise ValueError(f"{available} sequences are held out, fewer than the {processes} processes; hold out more")
    if processes == 1:
        return count, device_batch
    share = count // processes
    return count, max(size for size in range(1, min(device_batch, share) + 1) if share % size == 0)


def _arguments(plan: TrainingPlan, folder: Path, batches: tuple[int, int, int], cpu: bool) -> TrainingArguments:
    device_batch, accumulation, evaluation_batch = batches
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=device_batch,
        per_device_eval_batch_size=evaluation_batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="warmup_stable_decay" if plan.schedule == "wsd" else "linear",
        lr_scheduler_kwargs={"num_decay_steps": plan.decay_steps, "decay_type": "linear"} if plan.schedule == "wsd" else {},
        warmup_steps=plan.warm_up_steps,
        adam_beta1=plan.beta1,
        adam_beta2=plan.beta2,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.clip,
        bf16=plan.precision == "bf16",
        use_cpu=cpu,
        use_cache=True,  # what the published configuration says; training itself passes False
        ddp_backend="gloo" if cpu and PartialState().num_processes > 1 else None,
        ddp_find_unused_parameters=False,
        torch_compile=plan.compile,
        activation_checkpointing=plan.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if plan.checkpointing else None,
        dataloader_pin_memory=not cpu,
        prediction_loss_only=True,
        logging_steps=plan.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=plan.evaluate_every,
        save_strategy="steps",
        save_steps=plan.save_every,
        save_total_limit=plan.keep,
        disable_tqdm=True,
        report_to="none",
        seed=plan.seed,
        data_seed=plan.seed,
    )


class _Trainer(Trainer):
    """transformers' Trainer, without a key-value cache that nobody reads; it says in a sentence that a disk is full."""

    def __init__(self, *, plan: TrainingPlan, **options: Any) -> None:
        super().__init__(**options)
        self._plan = plan

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            network: Any = self.model if model is None else model
            self.optimizer = make_optimizer(network, self._plan.optimizer_plan)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        parts = {} if self._plan.logits_at_a_time is None else {"logits_at_a_time": self._plan.logits_at_a_time}
        return super().compute_loss(model, {**inputs, "use_cache": False, **parts}, *arguments, **options)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        if self.args.should_save:
            check_room(folder, _BYTES_PER_PARAMETER * parameter_count(model))
        with _disk_errors(folder):
            super()._save_checkpoint(model, trial)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """torch and safetensors report a full disk as their own errors: make them OSErrors that say what to do."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in ("PytorchStreamWriter", "unexpected pos")):
            raise
        reason = " ".join(str(error).split())
        raise OSError(
            f"nothing can be written to {folder} ({reason}); make room and run the same command again: "
            "it goes on from the last whole checkpoint"
        ) from None


@dataclass
class _Log:
    """The rows of one run, its clock, and the bar that shows both."""

    folder: Path
    start: int
    plan: TrainingPlan
    flops_per_token: float
    peak: float
    held_out_sequences: int
    processes: PartialState
    progress: bool
    file: RowFile = field(init=False)
    rows: list[Row] = field(init=False)
    bar: tqdm[Any] = field(init=False)
    mark: float = 0.0
    marked_step: int = 0

    def __enter__(self) -> _Log:
        with self.processes.main_process_first():  # which alone changes the file
            self.file = RowFile(self.folder / "log.jsonl")
            self.rows = [row for row in self.file.rows if row.get("step", math.inf) <= self.start]
            if self.processes.is_main_process:
                self.file.keep(lambda row: row.get("step", math.inf) <= self.start)
        self.bar = tqdm(
            total=self.plan.steps, initial=self.start, unit="step", disable=None if self.progress else True, dynamic_ncols=True
        )
        self.restart(self.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def append(self, row: Row) -> None:
        """Add a row; the main process alone puts it on disk."""
        self.rows.append(row)
        if self.processes.is_main_process:
            self.file.append(row)

    def draw(self) -> None:
        """Both losses so far, as loss.png."""
        if self.processes.is_main_process:
            save_figure(loss_figure(self.rows), self.folder / "loss.png")

    def restart(self, step: int) -> None:
        """Begin to time at `step`."""
        self.mark, self.marked_step = time.perf_counter(), step

    def trained(self, step: int, logs: dict[str, float]) -> Row:
        """The row of the training loss at `step`. ValueError if loss or gradient are no numbers any more."""
        _finite("loss", logs["loss"], step)
        _finite("gradient norm", logs["grad_norm"], step)
        seconds = time.perf_counter() - self.mark
        tokens_per_s = (step - self.marked_step) * self.plan.tokens_per_step / seconds
        mfu = tokens_per_s * self.flops_per_token / self.peak
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, {tokens_per_s:,.0f} tokens/s, MFU {mfu:.0%}", refresh=False)
        self.restart(step)
        return {
            "step": step,
            "tokens": step * self.plan.tokens_per_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "gradient_norm": logs["grad_norm"],
            "seconds": seconds,
            "tokens_per_s": tokens_per_s,
            "mfu": mfu,
        }

    def evaluated(self, step: int, loss: float) -> Row:
        """The row of the held-out loss at `step`; ValueError if it is not a number."""
        _finite("held-out loss", loss, step)
        if self.progress:
            last = next((row for row in reversed(self.rows) if "loss" in row), None)
            speed = (
                "" if last is None else f", loss {last['loss']:.4f}, {last['tokens_per_s']:,.0f} tokens/s, MFU {last['mfu']:.0%}"
            )
            left = (
                ""
                if last is None
                else f", {_duration((self.plan.steps - step) * self.plan.tokens_per_step / last['tokens_per_s'])} left"
            )
            tqdm.write(f"step {step:,} of {self.plan.steps:,}: held-out loss {loss:.4f}{speed}{left}")
        return {"step": step, "tokens": step * self.plan.tokens_per_step, "held_out_loss": loss}

    def result(self, parameters: int) -> TrainingResult:
        """What the rows come to."""
        trained = [row for row in self.rows if "loss" in row]
        evaluated = [row for row in self.rows if "held_out_loss" in row]
        if not trained or not evaluated:
            raise ValueError(f"{self.folder / 'log.jsonl'} lacks rows of this run; start over with --fresh")
        tokens_per_s = median(row["tokens_per_s"] for row in trained[1:] or trained)
        return TrainingResult(
            steps=trained[-1]["step"],
            parameters=parameters,
            training_flops_per_token=self.flops_per_token,
            held_out_sequences=self.held_out_sequences,
            held_out_loss=evaluated[-1]["held_out_loss"],
            training_loss=trained[-1]["loss"],
            tokens=trained[-1]["tokens"],
            seconds=sum(row["seconds"] for row in trained),
            tokens_per_s=tokens_per_s,
            mfu=tokens_per_s * self.flops_per_token / self.peak,
            peak_flops_per_s=self.peak,
        )


class _Keeper(TrainerCallback):
    """Hands what the Trainer reports to the log."""

    def __init__(self, log: _Log) -> None:
        self._log = log

    def _ends_stable(self, state: TrainerState) -> bool:
        """Whether a longer run could go on from this step."""
        return self._log.plan.schedule == "wsd" and state.global_step == self._log.plan.stable_steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == state.max_steps:  # the last step counts, whatever the schedule says
            control.should_log = control.should_evaluate = control.should_save = True
        if self._ends_stable(state):
            control.should_save = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._log.append(self._log.trained(state.global_step, logs))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        self._log.append(self._log.evaluated(state.global_step, metrics["eval_loss"]))
        self._log.restart(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._log.processes.wait_for_everyone()  # each of them writes its own file
        if self._log.processes.is_main_process:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint)
            if self._ends_stable(state):
                keep_stable(checkpoint)
        self._log.draw()
        self._log.restart(state.global_step)


def _publish(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase | None, folder: Path, run: dict[str, Any], result: TrainingResult
) -> None:
    """The trained network in `folder`, each file written atomically, and `training.json` as the last of them."""
    unfinished = folder / ".unfinished"
    with _disk_errors(folder):
        trainer.save_model(str(unfinished))
    if not trainer.args.should_save:
        return
    (unfinished / "training_args.bin").unlink(missing_ok=True)  # a pickle, and run.json says as much
    model = AutoModelForCausalLM.from_pretrained(unfinished)
    plain = plain_form(model)
    if plain is not None:  # checkpoints stay ours
        shutil.rmtree(unfinished)
        with _disk_errors(folder):
            plain.save_pretrained(unfinished)
    if tokenizer is not None:
        save_tokenizer(tokenizer, unfinished, positions_of(model.config))
    for path in sorted(unfinished.iterdir()):
        os.replace(path, folder / path.name)
    unfinished.rmdir()
    write_json(folder / RESULT, {"format": "merino training", "version": 1, **run, "result": asdict(result)})


def loss_figure(rows: list[Row]) -> Any:
    """Training and held-out loss [nat per token] over the tokens trained on; a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    trained = [row for row in rows if "loss" in row]
    evaluated = [row for row in rows if "held_out_loss" in row]
    axes.plot(
        [row["tokens"] / 1e6 for row in trained], [row["loss"] for row in trained], color="0.65", linewidth=1, label="training"
    )
    axes.plot(
        [row["tokens"] / 1e6 for row in evaluated],
        [row["held_out_loss"] for row in evaluated],
        color="#0072B2",
        marker="o",
        markersize=3,
        label="held out",
    )
    axes.set_xlabel("tokens trained on [million]")
    axes.set_ylabel("loss [nat per token]")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


class Diverged(ValueError):
    """A loss or gradient that is not a number any more; the run is deterministic, so it will be again."""


def _finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"the {name} is {value} at step {step}; lower the learning rate, lengthen the warm-up or use float32, "
            "and start over in another output folder"
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _say(shown: bool, sentence: str) -> None:
    if shown:
        tqdm.write(sentence)
