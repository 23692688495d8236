"""Perplexity of a language model on a text: which tokens are scored in which window, and what the total is divided by.

The two benchmarks of the paper come from here as well; other texts are read by `merino_net.corpus.text`, and models and tables are
`merino_net.evaluate`'s.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from merino_net.corpus.text import END_OF_TEXT, Text
from merino_net.network.pretrained import first_line, positions_of, start_token

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXT = 1024
"""Tokens of the context window where none is asked for and the model has as many positions."""
_LOGITS_BYTES = 64 * 2**20
"""Float32 logits held at a time: rows of a vocabulary of 50,257 come 333 at a time."""


@dataclass(frozen=True)
class NamedText:
    """The documents of a text with the name of its column and a phrase that says which variant of it this is."""

    name: str
    variant: str
    documents: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the UTF-8 bytes, with <|endoftext|> between documents: whatever kind of file they come from."""
        return hashlib.sha256(END_OF_TEXT.join(self.documents).encode()).hexdigest()


@dataclass(frozen=True)
class _Benchmark:
    """Where a benchmark's test text is found: a file's name, or a data set of the hub whose rows are lines."""

    title: str
    file: str
    dataset: str
    config: str
    revision: str | None
    field: str
    line: Callable[[str], str]


BENCHMARKS = {
    # The hub's rows are the lines of the file, but that a blank line (" \n" in the file) is an empty row.
    "wikitext2": _Benchmark(
        "WikiText-2 test",
        "wikitext2.test.txt",
        "Salesforce/wikitext",
        "wikitext-2-raw-v1",
        None,
        "text",
        lambda row: row or " \n",
    ),
    # This data set is a script, which `datasets` no longer runs; the hub keeps its rows as Parquet under this revision, stripped
    # of the space at either end and the line end.
    "ptb": _Benchmark(
        "PTB test",
        "ptb.test.txt",
        "ptb-text-only/ptb_text_only",
        "penn_treebank",
        "refs/convert/parquet",
        "sentence",
        lambda row: f" {row} \n",
    ),
}
"""The paper's two perplexity benchmarks. The hub gives WikiText-2 raw, with words where the original has <unk>."""


@dataclass(frozen=True)
class Score:
    """Total negative log-likelihood of a text in nat, and the counts that it is divided by, over all of its documents.

    words are what white space separates; lines are line ends, and a last line without one. The published sizes of WikiText-2
    and PTB (245,569 and 82,430 for the test texts) are words + lines, one end of line for each line.
    """

    nats: float
    tokens: int
    words: int
    lines: int
    bytes: int

    @property
    def token_perplexity(self) -> float | None:
        """exp(nats / tokens): depends on the tokenizer, so compare it within one tokenizer only."""
        return _perplexity(self.nats, self.tokens)

    @property
    def word_perplexity(self) -> float | None:
        """exp(nats / (words + lines)): a line end counts as a word, as in the published sizes."""
        return _perplexity(self.nats, self.words + self.lines)

    @property
    def word_perplexity_without_line_ends(self) -> float | None:
        """exp(nats / words); None for a text of white space."""
        return _perplexity(self.nats, self.words)

    @property
    def byte_perplexity(self) -> float | None:
        """exp(nats / bytes of UTF-8)."""
        return _perplexity(self.nats, self.bytes)

    @property
    def bits_per_byte(self) -> float:
        """nats / (bytes · ln 2)."""
        return self.nats / (self.bytes * math.log(2))

    def to_dict(self) -> dict[str, Any]:
        """Counts and measures, ready for JSON."""
        return {
            "nats": self.nats,
            "tokens": self.tokens,
            "words": self.words,
            "lines": self.lines,
            "bytes": self.bytes,
            "token_perplexity": self.token_perplexity,
            "word_perplexity": self.word_perplexity,
            "word_perplexity_without_line_ends": self.word_perplexity_without_line_ends,
            "byte_perplexity": self.byte_perplexity,
            "bits_per_byte": self.bits_per_byte,
        }


def _perplexity(nats: float, units: int) -> float | None:
    """exp(nats / units); None if there is no unit or the result exceeds what a double holds."""
    if units == 0 or nats / units > math.log(1e300):
        return None
    return math.exp(nats / units)


def benchmark_text(name: str, data_dir: Path | None = None) -> NamedText:
    """The test text of a benchmark: from its file in `data_dir` or data_dir/eval, else from the hub.

    Raises:
        ValueError: for an unknown name, a file that is missing, and a hub that does not answer.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"the benchmark {name} is not known; expected {' or '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    if data_dir is None:
        origin = f"hub data set {benchmark.dataset}, {benchmark.config}"
        text: tuple[str, ...] = (_text_of_hub(benchmark),)
    else:
        origin = f"file {benchmark.file}"
        text = Text((str(_benchmark_file(benchmark, data_dir)),)).in_memory()
    unknown = "tokenised, with <unk>" if any("<unk>" in document for document in text) else "without <unk>"
    return NamedText(name, f"{benchmark.title}, {unknown}, {origin}", text)


def _benchmark_file(benchmark: _Benchmark, data_dir: Path) -> Path:
    places = (data_dir / benchmark.file, data_dir / "eval" / benchmark.file)
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ValueError(f"{benchmark.title} is neither {places[0]} nor {places[1]}; name another --data-dir, or none for the hub")
    return found


def _text_of_hub(benchmark: _Benchmark) -> str:
    import datasets

    try:
        rows = datasets.load_dataset(benchmark.dataset, benchmark.config, split="test", revision=benchmark.revision)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{benchmark.title} ({benchmark.dataset}) cannot be had from the Hugging Face hub ({first_line(error)}); "
            f"give a folder that holds {benchmark.file} with --data-dir"
        ) from None
    return "".join(map(benchmark.line, rows[benchmark.field]))


def window_of(positions: int | None, context: int | None = None, stride: int | None = None) -> tuple[int, int]:
    """Context and stride in tokens, checked: by default min(positions, 1024), and half the context.

    Raises:
        ValueError: for a context above the model's positions and for a stride outside 1…context.
    """
    if context is None:
        context = CONTEXT if positions is None else min(CONTEXT, positions)
    if context < 1:
        raise ValueError(f"the context is {context} tokens; expected at least 1")
    if positions is not None and context > positions:
        raise ValueError(
            f"the context of {context:,} tokens exceeds the model's {positions:,} positions; ask for {positions} at most"
        )
    if stride is None:
        stride = max(1, context // 2)
    if not 1 <= stride <= context:
        raise ValueError(f"the stride is {stride} tokens; expected 1 to {context}, the context")
    return context, stride


def windows(tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """The windows (start, end, scored) over z = (start token, x_1, …, x_tokens): input z[start:end], its last `scored` next tokens.

    The first window scores min(context, tokens) tokens, each further one `stride` of them or what is left, so that every token
    is scored once, from all that precedes it or at least context − stride + 1 tokens (the start token counted).
    Every window but one that holds the whole text is `context` long: the last is moved back, not shortened. With stride = context
    the scored parts lie side by side and the totals are those of lm-evaluation-harness's rolling log-likelihood.
    """
    done = 0
    while done < tokens:
        scored = min(stride if done else context, tokens - done)
        done += scored
        yield max(0, done - context), done, scored


def score_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str | Sequence[str],
    *,
    context: int | None = None,
    stride: int | None = None,
    batch: int = 8,
    progress: Callable[[int, int], object] | None = None,
) -> Score:
    """Total −log p(text) in nat under a causal language model, in sliding windows (see `windows`), with the text's counts.

    The text is one document, or several, each scored by itself: the start token precedes it as context, nothing follows it. A
    special token written out in it is read as that token. batch windows make one forward pass; log-softmax is float32 and sums
    are float64 whatever the model computes in. progress is told after each pass how many tokens it scored, and of how many. Runs
    where the model is, and leaves it in evaluation mode.

    Raises:
        ValueError: for an empty text, a tokenizer without an end-of-text token or with tokens the model does not know, a window
            that does not fit, and a loss that is not finite.
    """
    import torch

    documents = [text] if isinstance(text, str) else list(text)
    if not documents or not all(documents):
        raise ValueError("the text is empty; expected at least one character, in every document")
    if batch < 1:
        raise ValueError(f"the batch is {batch} windows; expected at least 1")
    context, stride = window_of(positions_of(model.config), context, stride)
    encoded = tokenizer(documents, add_special_tokens=False, verbose=False)["input_ids"]
    total = sum(map(len, encoded))
    if total == 0:
        raise ValueError("the tokenizer makes no token of the text; expected at least one")
    sequence = torch.tensor([token for tokens in encoded for token in (start_token(tokenizer), *tokens)])
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if int(sequence.max()) >= rows:
        raise ValueError(
            f"the tokenizer gives token {int(sequence.max()):,}, but the model knows {rows:,} tokens; use the model's own tokenizer"
        )
    model.eval()
    nats = 0.0
    with torch.inference_mode():
        states_of, head = _halves(model, sequence[:4])
        # Where the head cannot be applied by itself, whole windows of logits are held: one at a time keeps them small.
        for group in _batches(_all_windows(encoded, context, stride), batch if head else 1):
            nats += _group_nats(states_of, head, sequence, group, model.device)
            if progress is not None:
                progress(sum(scored for _, _, scored in group), total)
    if not math.isfinite(nats):
        raise ValueError(f"the model's loss on the text is {nats}; its weights are damaged or overflow in this number format")
    return Score(
        nats,
        total,
        sum(len(document.split()) for document in documents),
        sum(document.count("\n") + (not document.endswith("\n")) for document in documents),
        sum(len(document.encode()) for document in documents),
    )


def _all_windows(encoded: Sequence[Sequence[int]], context: int, stride: int) -> list[tuple[int, int, int]]:
    """The windows of all documents in one row of tokens, a start token before each document; those of one length side by side."""
    found, begin = [], 0
    for tokens in encoded:
        found += [(begin + start, begin + end, scored) for start, end, scored in windows(len(tokens), context, stride)]
        begin += 1 + len(tokens)
    return sorted(found, key=lambda window: window[0] - window[1])


_Map: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


def _halves(model: PreTrainedModel, probe: torch.Tensor) -> tuple[_Map, _Map | None]:
    """The model as (tokens -> hidden states, hidden states -> logits), or (tokens -> logits, None).

    Applying the head to the scored positions alone, some rows at a time, saves the memory of full logits and the work for tokens
    that are context only. Some models do more to their logits than the head (a scale, a cap), so it is tried on a few tokens first.
    """
    import torch

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        return model(input_ids=tokens, use_cache=False).logits

    def states(tokens: torch.Tensor) -> torch.Tensor:
        return base(input_ids=tokens, use_cache=False).last_hidden_state

    base, head = model.base_model, model.get_output_embeddings()
    if base is model or head is None:
        return logits, None
    tokens = probe[None].to(model.device)
    hidden = states(tokens)
    fits = hidden.shape[-1] == getattr(head, "in_features", None)
    return (states, head) if fits and torch.equal(head(hidden), logits(tokens)) else (logits, None)


def _batches(all_windows: Sequence[tuple[int, int, int]], batch: int) -> Iterator[list[tuple[int, int, int]]]:
    """Up to `batch` windows at a time, equally long; those of one length stand side by side."""
    for _, alike in groupby(all_windows, key=lambda window: window[1] - window[0]):
        while group := list(islice(alike, batch)):
            yield group


def _group_nats(
    states_of: _Map, head: _Map | None, sequence: torch.Tensor, group: list[tuple[int, int, int]], device: torch.device
) -> float:
    """Negative log-likelihood in nat of the scored tokens of windows of one length."""
    import torch

    states = states_of(torch.stack([sequence[start:end] for start, end, _ in group]).to(device))
    scored = torch.cat([row[len(row) - count :] for row, (_, _, count) in zip(states, group, strict=True)])
    targets = torch.cat([sequence[end + 1 - count : end + 1] for _, end, count in group]).to(device)
    vocabulary = scored.shape[-1] if head is None else int(head.out_features)  # type: ignore[attr-defined]
    rows = max(1, _LOGITS_BYTES // (4 * vocabulary))
    total = torch.zeros((), dtype=torch.float64, device=device)
    for some, wanted in zip(scored.split(rows), targets.split(rows), strict=True):
        logits = some if head is None else head(some)
        total += torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none").double().sum()
    return float(total)
