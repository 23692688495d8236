"""Programs of other people on folders, in a process without our packages: python -I folder_clients.py CLIENTS TOKENS FOLDER ...

CLIENTS is `transformers` or `tuning` (PEFT and TRL), TOKENS a JSON list. The last line printed is a JSON object: what each
client gave, by folder, and "versions".
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

OURS = ("merino", "merino_net", "merino_packages", "formulation", "solvers", "hardware_models", "studies")
SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_strategy": "no",
}


class Blocker:
    """Makes our packages impossible to import, as where they are not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def trust_of(folder: str) -> dict[str, bool]:
    """What a folder with code of its own has to be told."""
    return {"trust_remote_code": True} if (Path(folder) / "modeling_merino.py").exists() else {}


def in_transformers(folder: str, tokens: list[int]) -> dict[str, Any]:
    """Auto classes, generate, pipeline, Trainer and the two heads of classification; an error ends all."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments

    trust = trust_of(folder)
    found: dict[str, Any] = {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    model = AutoModelForCausalLM.from_pretrained(folder, **trust)
    found["class"] = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    found["tokenizer"] = [type(tokenizer).__name__, tokenizer.model_max_length, tokenizer.pad_token_id, tokenizer.eos_token_id]
    with torch.no_grad():
        found["logits"] = model(torch.tensor([tokens])).logits[0, -1].tolist()
    prompt = tokenizer("the cat", return_tensors="pt")
    found["generate"] = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0].tolist()
    made = transformers.pipeline("text-generation", model=folder, **trust)("the cat", max_new_tokens=5, do_sample=False)
    found["pipeline"] = made[0]["generated_text"]

    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    ended = [{"input_ids": [*tokens[:3], tokenizer.eos_token_id]}, {"input_ids": tokens[:6]}]
    found["labels"] = collator(ended)["labels"][0].tolist()
    rows = [{"input_ids": tokens} for _ in range(6)]
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(output_dir=scratch, **SETTINGS)
        trainer = Trainer(model, settings, data_collator=collator, train_dataset=rows)
        trainer.train()
        trainer.save_model(scratch)
        again = AutoModelForCausalLM.from_pretrained(scratch, **trust)
        pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        found["Trainer"] = all(torch.equal(a, b) for a, b in pairs)
    for kind, labels in (("Sequence", 1), ("Token", [0] * len(tokens))):
        auto = getattr(transformers, f"AutoModelFor{kind}Classification")
        head = auto.from_pretrained(folder, num_labels=2, **trust)
        with tempfile.TemporaryDirectory() as scratch:
            settings = TrainingArguments(output_dir=scratch, **SETTINGS)
            labelled = [{**row, "labels": labels} for row in rows]
            trainer = Trainer(head, settings, train_dataset=labelled, processing_class=tokenizer)
            trainer.train()
            trainer.save_model(scratch)
            again = auto.from_pretrained(scratch, **trust)
            found[kind] = [type(again).__name__, torch.equal(again.score.weight, head.score.weight)]
    return found


def in_tuning(folder: str, tokens: list[int]) -> dict[str, Any]:
    """PEFT's adapters and TRL's supervised fine-tuning: "works", or the error."""
    import peft
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trust = trust_of(folder)

    def adapted(plan: peft.PeftConfig) -> None:
        """Three steps lower the loss, and a saved adapter gives the same logits again."""
        batch = torch.tensor([tokens])
        tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder, **trust), plan)
        optimizer = torch.optim.SGD([each for each in tuned.parameters() if each.requires_grad], lr=0.01)
        losses = []
        for _ in range(3):
            loss = tuned(batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if not losses[-1] < losses[0]:
            raise ValueError(f"the losses {losses} do not fall")
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            tuned.eval().save_pretrained(scratch)
            again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, **trust), scratch)
            torch.testing.assert_close(again(batch).logits, tuned(batch).logits)

    def fine_tuned() -> None:
        texts = Dataset.from_list([{"text": "the cat sat on the mat"}] * 6)
        with tempfile.TemporaryDirectory() as scratch:
            plan = trl.SFTConfig(output_dir=scratch, max_length=16, **SETTINGS)
            model = AutoModelForCausalLM.from_pretrained(folder, **trust)
            tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
            trl.SFTTrainer(model, plan, train_dataset=texts, processing_class=tokenizer).train()

    clients: dict[str, Callable[[], None]] = {
        "PEFT LoRA": lambda: adapted(peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")),
        "PEFT prefix": lambda: adapted(peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)),
        "TRL SFT": fine_tuned,
    }
    found = {}
    for name, client in clients.items():
        try:
            client()
            found[name] = "works"
        except Exception as error:  # told, for the test to judge: some networks are beyond some clients
            found[name] = f"{type(error).__name__}: {error}"[:300]
    return found


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocker())  # type: ignore[arg-type]  # a finder needs no more
    _, clients, tokens, *folders = sys.argv
    tried = {"transformers": in_transformers, "tuning": in_tuning}[clients]
    packages = {"transformers": ("transformers", "torch"), "tuning": ("peft", "trl", "transformers")}[clients]
    results: dict[str, Any] = {folder: tried(folder, json.loads(tokens)) for folder in folders}
    print(json.dumps(results | {"versions": {name: version(name) for name in packages}}))
