"""Runs a GGUF file in llama.cpp (xllamacpp, which has it inside) and says what it found.

Reads a job (JSON: folder, threads, write, score, timing, exact), prints a report (JSON) as its last line. Imports the runtime and
the standard library alone.
"""

import importlib.metadata
import json
import os
import random
import resource
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

LEAST_PASSES = 5
FORCED = 1e6
"""Added to a logit so that its token is the next one; what is said of probabilities is from before that."""


def peak_bytes():
    """Most memory that this process has had so far; not what its parent had, which getrusage counts in on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def quiet():
    """Send what llama.cpp writes to stderr nowhere; Python's own stderr stays."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class LlamaServer:
    """A GGUF file in llama.cpp's server, asked over the loopback address, one request at a time.

    Args:
        path: of the file.
        threads: at most so many work.
        positions: the longest sequence that is asked about, with what follows it.
        exact: keep keys and values in single precision; left alone, llama.cpp keeps them in half.
        flash: leave flash attention on, as llama.cpp does; it rounds to half precision, so that `exact` turns it off.
    """

    def __init__(self, path: Path, threads: int, positions: int, exact: bool = False, flash: bool = True) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = positions
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        if exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        if exact or not flash:
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup = False
        params.fit_params = False
        params.cache_ram_mib = 0
        params.verbosity = -1
        params.port = 0
        self.server = xllamacpp.Server(params)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        self.vocabulary = self.post("/v1/models")["data"][0]["meta"]["n_vocab"]
        self.positions = self.post("/props")["default_generation_settings"]["n_ctx"]

    def post(self, address, **asked):
        """The server's answer; RuntimeError with its own words if it has none."""
        data = json.dumps(asked).encode() if asked else None
        request = urllib.request.Request(f"{self.server.listening_address}{address}", data, {"Content-Type": "application/json"})
        try:
            with self.opener.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["error"]["message"]) from None

    def ask(self, prompt, count, **options):
        """The answer to a prompt (token ids) with `count` more tokens, the most probable each time."""
        return self.post("/completion", prompt=list(prompt), n_predict=count, temperature=0, return_tokens=True, **options)

    def write(self, prompt, count):
        """Tokens and text that follow a prompt, up to an end of text."""
        tokens = self.ask(prompt, count)["tokens"]
        return tokens, self.text(tokens)

    def text(self, tokens):
        """Tokens as text."""
        return self.post("/detokenize", tokens=list(tokens))["content"]

    def tokens(self, text):
        """Text as tokens."""
        return self.post("/tokenize", content=text, add_special=True)["tokens"]

    def top(self, prompt, count):
        """The `count` most probable next tokens with the logarithms of their probabilities, {token: logarithm}."""
        ascii_token = self.tokens("a")[-1]
        answer = self.ask(prompt, 1, n_probs=count, logit_bias=[[ascii_token, FORCED]])
        return {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}

    def score(self, sequence):
        """Natural logarithms of the probability of each token but the first.

        Each token is made the next one, which tells its probability whatever its rank. Only of one that ends inside a character
        the server is silent; there all probabilities are asked for.
        """
        found = []
        for end in range(1, len(sequence)):
            token = sequence[end]
            told = self.ask(sequence[:end], 1, n_probs=1, logit_bias=[[token, FORCED]]).get("completion_probabilities", [])
            if told and told[0]["id"] == token:
                found.append(told[0]["logprob"])
            else:
                found.append(self.top(sequence[:end], self.vocabulary)[token])
        return found

    def prefill_ms(self, prompt):
        """Milliseconds of a prompt of which nothing is in the cache, by llama.cpp's own clock.

        The server leaves room for a token behind a prompt: of one that fills all positions the last token is left out.
        """
        return self.ask(prompt[: self.positions - 1], 1, cache_prompt=False)["timings"]["prompt_ms"]

    def decode_ms(self, prompt, steps=1):
        """Milliseconds of a step after a prompt, on average, by llama.cpp's own clock.

        The first token still ends the prompt, and `predicted_ms` is about those behind it.
        """
        answer = self.ask(prompt[: self.positions - 1 - steps], steps + 1, ignore_eos=True)
        return answer["timings"]["predicted_ms"] / steps


def timed(one_pass, seconds):
    """What `one_pass` gives, again and again for so many seconds and at least five times, after a warm-up."""
    one_pass()
    until = time.perf_counter() + seconds
    found = [one_pass() for _ in range(LEAST_PASSES)]
    while time.perf_counter() < until:
        found.append(one_pass())
    return found


def main():
    """Do the job."""
    job = json.load(sys.stdin)
    paths = sorted(Path(job["folder"]).glob("*.gguf"))
    if len(paths) != 1:
        sys.exit(f"the folder has {len(paths)} files *.gguf; expected one")
    quiet()
    import xllamacpp  # noqa: F401  (what it takes is not the model's)

    idle = peak_bytes()
    timing = job["timing"]
    lengths = [len(prompt) + more for prompt, more in job["write"]] + [len(sequence) for sequence in job["score"]]
    longest = max([*lengths, timing["seq_len"] + 1 if timing else 1])
    begun = time.perf_counter()
    model = LlamaServer(paths[0], job["threads"], longest + 1, job["exact"])
    loaded = time.perf_counter() - begun
    report = {"version": importlib.metadata.version("xllamacpp"), "load_ms": loaded * 1e3, "idle_bytes": idle}
    written = [model.write(prompt, more) for prompt, more in job["write"]]
    report["written"] = [tokens for tokens, _ in written]
    report["texts"] = [text for _, text in written]
    report["scored"] = [model.score(sequence) for sequence in job["score"]]
    if timing:
        drawn = random.Random(0)
        prompt = [drawn.randrange(model.vocabulary) for _ in range(timing["seq_len"])]
        passes = (("prefill", lambda: model.prefill_ms(prompt)), ("decode", lambda: model.decode_ms(prompt)))
        for phase, one_pass in passes:
            if phase in timing["phases"]:
                report[f"{phase}_ms"] = timed(one_pass, timing["seconds"])
    report["peak_bytes"] = peak_bytes()
    print(json.dumps(report), flush=True)
    os._exit(0)  # the server's threads need not be waited for


if __name__ == "__main__":
    main()
