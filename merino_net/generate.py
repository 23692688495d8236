"""Text from a language model, streamed as it is produced.

    python -m merino_net.generate results/train --prompt "The network" --tokens 60 --seed 7
    python -m merino_net.generate facebook/opt-125m --prompt "Once upon a time" --greedy
    echo "A list is" | python -m merino_net.generate results/train --prompt - --temperature 0.6 --top-p 0.9

The text goes to standard output, the speed to standard error.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from formulation.command.help import command_parser
from formulation.command.run import run_command
from formulation.command.words import counted
from merino_net.network.pretrained import embedding_rows, find_models, load_model, positions_of, quieten, start_token, torch_device
from merino_net.network.registration import require_network

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
    from transformers.generation.streamers import BaseStreamer

_LEAST_TEMPERATURE = 0.001
"""Below it logits overflow when they are divided by the temperature; long before, a draw is as good as greedy."""
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; by default a draw among the 50 most probable at temperature 0.8.

    Attributes:
        temperature: divides the logits before the softmax; 0 takes the most probable token, which is greedy decoding.
        top_k: only the k most probable tokens take part; 0: all.
        top_p: of those, only the most probable that together reach this probability; 1: all.
    """

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not _LEAST_TEMPERATURE <= self.temperature < math.inf:
            raise ValueError(f"the temperature is {self.temperature:g}; expected 0 (greedy) or at least {_LEAST_TEMPERATURE}")
        if self.top_k < 0:
            raise ValueError(f"top-k is {self.top_k}; expected a number of tokens of at least 1, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p is {self.top_p:g}; expected a probability above 0 and at most 1")


GREEDY = Sampling(temperature=0)
"""The most probable token each time."""


def continuation(
    model: Any,
    prompt: Tensor,
    count: int,
    sampling: Sampling = GREEDY,
    *,
    attention_mask: Tensor | None = None,
    end: int | None = None,
    cache: bool = True,
    seed: int = 0,
    streamer: BaseStreamer | None = None,
) -> Tensor:
    """The `count` tokens that follow each row of `prompt`, (B, count); fewer where all rows reached the token `end`.

    After its end a row holds `end`. Rows of unequal length are padded on the left, with zeros there in `attention_mask` (B, T).

    Args:
        cache: keep keys and values instead of computing the whole sequence for every token: the same text, faster.
        seed: of the draws: the same seed gives the same tokens.
    """
    import torch
    from transformers import GenerationConfig

    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": float(sampling.temperature), "top_k": sampling.top_k, "top_p": sampling.top_p}
    # Stated in full: what a model's own generation_config.json says would hold otherwise.
    settings = GenerationConfig(
        max_new_tokens=count, eos_token_id=end, pad_token_id=0 if end is None else end, use_cache=cache, num_beams=1, **drawn
    )
    mask = torch.ones_like(prompt) if attention_mask is None else attention_mask
    own, model.generation_config = model.generation_config, settings
    torch.manual_seed(seed)
    try:
        sequences = model.eval().generate(prompt, attention_mask=mask, streamer=streamer)
    finally:
        model.generation_config = own
    return sequences[:, prompt.shape[1] :]


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    standard = Sampling()
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("model", metavar="MODEL", help="a folder that save_pretrained wrote, or a name on the Hugging Face hub")
    parser.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help="what to continue; - reads it from standard input, without its last line end (default: nothing, a new text begins)",
    )
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="new tokens at most (default: %(default)s)")
    parser.add_argument("--temperature", type=float, metavar="T", help=f"0 is greedy (default: {standard.temperature})")
    parser.add_argument(
        "--top-k", type=int, metavar="K", help=f"draw among the K most probable (default: {standard.top_k}; 0: all)"
    )
    parser.add_argument("--top-p", type=float, metavar="P", help="draw among the most probable that reach P together (default: 1)")
    parser.add_argument("--greedy", action="store_true", help="take the most probable token instead of drawing one")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same text (default: %(default)s)")
    parser.add_argument("--no-cache", action="store_true", help="compute the whole text for every token: to compare, slower")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="number format of the model (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 and so on (default: cuda where there is one)")
    return parser


def sampling_of(greedy: bool, **flags: Any) -> Sampling:
    """The sampling that flags ask for, None standing for one not given; ValueError for senseless values or ones beside --greedy."""
    given = {name: value for name, value in flags.items() if value is not None}
    if greedy and given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--greedy takes the most probable token, so {named} would do nothing; give one or the other")
    return GREEDY if greedy else Sampling(**given)


def prompt_of(text: str) -> str:
    """The prompt: `text` itself, or standard input for "-". ValueError, with the byte's offset, where it is not UTF-8."""
    # Of a command line that is not UTF-8 Python makes a string that gives the same bytes back.
    raw = sys.stdin.buffer.read() if text == "-" else os.fsencode(text)
    try:
        prompt = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the prompt is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start:,} cannot be read; convert it"
        ) from None
    return prompt.removesuffix("\n") if text == "-" else prompt


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, count: int, positions: int | None) -> Tensor:
    """The prompt as tokens (1, T); an empty one is the token that begins a text.

    ValueError if the prompt with `count` tokens behind it exceeds the model's positions.
    """
    import torch

    tokens = tokenizer(prompt, verbose=False)["input_ids"] if prompt else []
    tokens = tokens or [start_token(tokenizer)]
    left = None if positions is None else positions - len(tokens)
    if left is not None and left < count:
        have = f"the prompt takes {counted(len(tokens), 'token')} of the model's {counted(positions or 0, 'position')}"
        if left < 1:
            raise ValueError(f"{have}, so none is left for an answer; shorten it")
        raise ValueError(f"{have}, which leaves {left:,} and not the {count:,} asked for; ask for --tokens {left} or shorten it")
    return torch.tensor([tokens])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line().parse_args(arguments)
    sampling = sampling_of(options.greedy, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    if options.tokens < 1:
        raise ValueError(f"--tokens is {options.tokens}; expected at least 1")
    if not 0 <= options.seed <= _LARGEST_SEED:
        raise ValueError(f"--seed is {options.seed}; expected a whole number of at least 0 and less than 2^63")
    require_network()
    from transformers import TextStreamer

    prompt = prompt_of(options.prompt)
    quieten(options.model)
    [found] = find_models([options.model])
    device = torch_device(options.device)
    model, tokenizer = load_model(found, options.dtype, device)
    tokens = prompt_tokens(tokenizer, prompt, options.tokens, positions_of(model.config)).to(device)
    if int(tokens.max()) >= (rows := embedding_rows(model)):
        raise ValueError(
            f"the tokenizer gives token {int(tokens.max()):,}, but the model knows {rows:,}; use the model's own tokenizer"
        )
    streamer = TextStreamer(tokenizer, skip_special_tokens=True)
    start = time.perf_counter()
    made = continuation(
        model,
        tokens,
        options.tokens,
        sampling,
        end=tokenizer.eos_token_id,
        cache=not options.no_cache,
        seed=options.seed,
        streamer=streamer,
    ).shape[1]
    seconds = time.perf_counter() - start
    ended = "" if made == options.tokens else ", where the text ended"
    print(
        f"{counted(made, 'token')} in {seconds:.2f} s, {made / seconds:,.1f} tokens/s{ended} "
        f"({options.dtype}, {device}, {'no cache' if options.no_cache else 'cache'})",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    run_command(main)
