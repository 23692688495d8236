#!/usr/bin/env python3
"""Measure a device with nothing but Python 3.6 and PyTorch 1.10: copy this one file to it and run it.

    python3 profile_standalone.py --name my-board                        # writes my-board.json; run it again to add rounds
    python3 profile_standalone.py --name my-board --phases prefill,decode --precisions float32,float16 --rounds 5

It times block-wise transformers as the Merino toolkit designs them, on the GPU where there is one, and writes a device file
(its format: hardware_models/device.py of the toolkit) with one row a network. Take the file home:

    python -m studies.design --budget latency@my-board.json=50

Prices are fitted to the rows when the file is read. `python -m hardware_models.profile` measures the same networks with the same
clockwork in other runtimes too. No f-string tricks, dataclasses or newer modules here: this file runs where nothing newer does.
"""

import argparse
import datetime
import json
import math
import os
import platform
import random
import sys
import time
import warnings

import torch
from torch import nn

HEAD_SIZE = 64
WIDTHS = tuple(range(256, 1025, 64))
FFN_RATIOS = (1, 1.5, 2, 3, 4)
MOST_LAYERS = 24
FIRST_POSITION = 2  # row of the first position in its table, as OPT has it
UNSHARED_LAYERS = 6  # the most that a network without shared weights has here: it has to fit into the memory of a small board
SURROUNDINGS = {"embedding_width": 768, "vocabulary": 50257, "positions": 2048}
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
PHASES = ("prefill", "decode")
LEAST = 20  # networks of a table: with fewer, its error cannot be told


def plan(count, seed=0, widths=WIDTHS, ratios=FFN_RATIOS, most_layers=MOST_LAYERS):
    """`count` networks to measure, each (blocks, shared) with blocks (width, ffn_width, depth); fewer are the beginning of more.

    Every third is a single block, their widths all over the range, deep after shallow; the others are whole networks of two to
    four blocks, with widths that never fall and total depths spread evenly on a logarithmic scale up to `most_layers`. Of the small
    ones, every other shares no weights. Drawn with the seed; the same on every machine and Python, as only random() is used.
    """
    draw = random.Random(seed)

    def pick(values):
        return values[int(draw.random() * len(values))]

    networks, repeats = [], 0
    while len(networks) < count:
        number = len(networks)
        if number % 3 == 0:
            single = number // 3 + repeats
            width = widths[5 * single % len(widths)]
            depth = 1 if single % 2 else min(4 + 2 * (single % 3), most_layers)
            shapes = ((width, int(width * pick(ratios)), depth),)
        else:
            blocks = 2 + int(draw.random() * 3)
            low, high = math.log(blocks), math.log(max(most_layers, blocks))
            total = int(round(math.exp(low + (high - low) * draw.random())))
            cuts = [1] * blocks
            for _ in range(total - blocks):
                cuts[int(draw.random() * blocks)] += 1
            chosen = sorted(pick(widths) for _ in range(blocks))
            shapes = tuple((width, int(width * pick(ratios)), depth) for width, depth in zip(chosen, cuts))
        layers = sum(depth for _, _, depth in shapes)
        network = (shapes, layers > UNSHARED_LAYERS or number % 2 == 0)
        if network not in networks:
            networks.append(network)
        else:
            repeats += 1
            if repeats > 100 * count:
                raise ValueError("there are no {} different networks of these widths and depths".format(count))
    return networks


class Layer(nn.Module):
    """A pre-norm transformer layer with biases; keys and values of earlier tokens come in, all of them go out."""

    def __init__(self, width, ffn_width, fused):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn_width)
        self.down = nn.Linear(ffn_width, width)
        self.heads = width // HEAD_SIZE
        self.fused = fused and hasattr(nn.functional, "scaled_dot_product_attention")

    def forward(self, x, mask, past):
        batch, tokens, width = x.shape
        parts = self.query_key_value(self.attention_norm(x)).view(batch, tokens, 3, self.heads, HEAD_SIZE).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        else:
            scores = torch.matmul(query, key.transpose(-1, -2)) * HEAD_SIZE**-0.5
            if mask is not None:
                scores = scores + mask
            mixed = torch.matmul(torch.softmax(scores, -1), value)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(torch.relu(self.up(self.ffn_norm(x)))), (key, value)


class Network(nn.Module):
    """Embedding, positions, blocks, final norm, and the embedding as output head; a bias-free map joins unequal neighbours.

    Positions are added behind the first map and the final norm stands before the last, as wide as the blocks there.

    Attributes:
        blocks: (width, ffn_width, depth) each.
        embedding: token embedding (vocabulary, embedding width), which networks may have in common.
        positions: their table (positions + FIRST_POSITION, width of the first block).
        shared: whether the layers of a block are one set of weights.
        fused: attention in PyTorch's own kernel where it has one.
        logits: "last": the head sees the last token of each sequence only.

    forward(tokens) is a prefill; forward(tokens, *past) goes on from keys and values, two tensors a layer application.
    """

    def __init__(self, blocks, embedding, positions, shared=True, fused=True, logits="last"):
        super().__init__()
        self.register_buffer("tokens", embedding)
        self.register_buffer("positions", positions)
        self.last = logits == "last"
        outside = embedding.shape[1]
        chain = [outside] + [width for width, _, _ in blocks] + [outside]
        pairs = list(zip(chain, chain[1:]))
        self.joints = nn.ModuleList(nn.Identity() if a == b else nn.Linear(a, b, bias=False) for a, b in pairs)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Layer(width, ffn_width, fused) for _ in range(min(1, depth) if shared else depth))
            for width, ffn_width, depth in blocks
        )
        self.depths = [depth for _, _, depth in blocks]
        self.norm = nn.LayerNorm(blocks[-1][0])
        self.head = None

    def with_own_head(self):
        """The same network, its output head a module with the embedding as its weight: what quantization looks for."""
        self.head = nn.Linear(1, 1, bias=False)
        self.head.weight = nn.Parameter(self.tokens, requires_grad=False)
        self.head.out_features, self.head.in_features = self.tokens.shape
        return self

    def forward(self, tokens, *past):
        seen = past[0].shape[2] if past else 0
        count = tokens.shape[1]
        x = self.joints[0](nn.functional.embedding(tokens, self.tokens))
        x = x + self.positions[seen + FIRST_POSITION : seen + FIRST_POSITION + count]
        mask = None if past else torch.full((count, count), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        states = []
        for number, (layers, depth) in enumerate(zip(self.blocks, self.depths)):
            if number:
                x = self.joints[number](x)
            for i in range(depth):
                used = len(states)
                x, state = layers[i % len(layers)](x, mask, past[used : used + 2] if past else None)
                states += state
        x = self.joints[-1](self.norm(x))
        x = x[:, -1:] if self.last else x
        return (nn.functional.linear(x, self.tokens) if self.head is None else self.head(x), *states)


def cache_of(blocks, length, batch, dtype, device):
    """Keys and values of `length` random tokens for every layer application of a network."""
    shapes = [(batch, width // HEAD_SIZE, length, HEAD_SIZE) for width, _, depth in blocks for _ in range(2 * depth)]
    return [torch.randn(shape, dtype=torch.float32).to(device=device, dtype=dtype) for shape in shapes]


def table_on(device, dtype, rows, width):
    """A table of tokens or positions with small random entries."""
    return (torch.rand(rows, width) * 0.04 - 0.02).to(device=device, dtype=dtype)


def in_8_bits(network):
    """PyTorch's dynamic quantization of every `nn.Linear`; it passes over maps that are functions, or of classes of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer PyTorch says that this moves elsewhere, where an old one does not have it
        return torch.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


def check_precision(network, precision):
    """SystemExit where a network would not run in the precision that its table names."""
    if precision == "int8":
        left = sum(isinstance(module, nn.Linear) for module in network.modules())
        if left or network.head is None:
            raise SystemExit(
                "error: {} linear maps of the network are not in 8 bits; leave int8 out of --precisions".format(left or 1)
            )
    else:
        kinds = {value.dtype for value in network.state_dict().values()}
        if kinds != {getattr(torch, precision)}:
            raise SystemExit(
                "error: the network holds {}; leave {} out of --precisions".format(" and ".join(sorted(map(str, kinds))), precision)
            )


def pass_of(network, blocks, workload, precision, device):
    """A function that runs one pass of a network through its workload, and returns when the device has finished."""
    batch, length = workload["batch"], workload["seq_len"]
    dtype = getattr(torch, "float32" if precision == "int8" else precision)
    count = length if workload["phase"] == "prefill" else 1
    tokens = torch.randint(SURROUNDINGS["vocabulary"], (batch, count)).to(device)
    past = [] if workload["phase"] == "prefill" else cache_of(blocks, length, batch, dtype, device)

    def run():
        with torch.no_grad():
            network(tokens, *past)
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def time_pass(run, seconds, least=5, warm_up=2):
    """Seconds of single passes, at least `least`, for about that many seconds in all; after a warm-up that does not count."""
    for _ in range(warm_up):
        run()
    timed, start = [], time.perf_counter()
    while len(timed) < least or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        timed.append(time.perf_counter() - before)
    return timed


STEADY = 0.04  # relative difference of the pace from the usual one up to which a machine counts as steady
ATTEMPTS = 4  # times that networks are measured for which it was not


class Pace:
    """A fixed piece of work that tells how fast the machine runs just now: clocks rise and fall, and others may use them too.

    Called, it gives the milliseconds of a hundred layer norms and activations of 128 × 768 numbers, about as long as a network.
    """

    def __init__(self, device="cpu"):
        self.device = device
        self.norm = nn.LayerNorm(768).to(device)
        self.numbers = torch.rand(128, 768).to(device)

    def work(self):
        with torch.no_grad():
            for _ in range(100):
                nn.functional.gelu(self.norm(self.numbers))
        if self.device != "cpu":
            torch.cuda.synchronize()

    def __call__(self):
        return 1000 * trimmed_mean(time_pass(self.work, 0.03, least=4, warm_up=1))

    def around(self, run, seconds):
        """Seconds of single passes, and the pace: the mean of what it was before and after."""
        before = self()
        timed = time_pass(run, seconds)
        time.sleep(0.1)  # threads of some runtimes go on spinning for a while after their work is done
        return timed, (before + self()) / 2


def median(values):
    """The middle one of the sorted values, the lower of two."""
    return sorted(values)[(len(values) - 1) // 2]


def usual_pace(paces):
    """The pace of the machine with nothing else on it, of the paces of many visits: that of the fast ones.

    Other work only ever slows a machine, and there may be more visits beside such work than without. A tenth of the visits, from
    20 on two at least, may be faster by luck; the pace is the median of all that are within STEADY of the next one.
    """
    ordered = sorted(paces)
    fast = ordered[min(max(2, len(ordered) // 10), (len(ordered) - 1) // 2)]
    return median([pace for pace in ordered if is_steady(pace, fast)])


def is_steady(pace, usual):
    """Whether the machine ran as fast as it usually does: what was timed then is clean."""
    return abs(pace / usual - 1) <= STEADY


def clean_rounds(visits, usual):
    """The cleanest visit of each round, of the visits of one network with their "round" and "pace_ms"; none where none is clean."""
    best = {}
    for visit in visits:
        number, off = visit["round"], abs(visit["pace_ms"] / usual - 1)
        if is_steady(visit["pace_ms"], usual) and (number not in best or off < abs(best[number]["pace_ms"] / usual - 1)):
            best[number] = visit
    return [best[number] for number in sorted(best)]


def left_out(networks, usual):
    """In words how much does not count, of the visits of each network: measurements (rounds of a network) without a clean visit."""
    rounds = [(len({visit["round"] for visit in visits}), len(clean_rounds(visits, usual))) for visits in networks]
    tried, clean = sum(all_of for all_of, _ in rounds), sum(good for _, good in rounds)
    never = sum(not good for _, good in rounds)
    return "{} of {} measurements left out, and with them {} of {} networks".format(tried - clean, tried, never, len(networks))


def trimmed_mean(values):
    """Mean of the middle half: the slowest quarter, in which something else ran, and the fastest do not count."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def deviation(values):
    """Standard deviation of the values, 0 for a single one."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))


def new_row(blocks, shared):
    """A row without rounds."""
    return {"blocks": blocks_record(blocks), "shared": shared, "rounds_ms": [], "std_ms": 0.0, "passes": 0, "visits": []}


def blocks_record(blocks):
    """The blocks as a device file holds them, each an object of its choices by name."""
    return [{"width": width, "ffn_width": ffn_width, "depth": depth} for width, ffn_width, depth in blocks]


def blocks_text(blocks):
    """512/512x2 640/960x1, as people read them."""
    return " ".join("{}/{}x{}".format(*block) for block in blocks)


def visit_of(number, timed, pace):
    """What a visit in a round of that number saw, as a row of a device file keeps it [ms]."""
    milliseconds = [1000 * value for value in timed]
    return {
        "round": number,
        "pace_ms": round(pace, 4),
        "ms": round(trimmed_mean(milliseconds), 6),
        "std_ms": round(deviation(milliseconds), 6),
        "passes": len(milliseconds),
    }


def settle(table):
    """Choose, for every row of a table, the cleanest visit of each round, by the usual pace of all visits so far."""
    rows, how = table["rows"], table["how"]
    usual = usual_pace([visit["pace_ms"] for row in rows for visit in row["visits"]])
    for row in rows:
        own = clean_rounds(row["visits"], usual)
        row["rounds_ms"] = [visit["ms"] for visit in own]
        row["passes"] = sum(visit["passes"] for visit in own)
        squares = sum(visit["std_ms"] ** 2 * (visit["passes"] - 1) for visit in own)
        row["std_ms"] = round(math.sqrt(squares / max(row["passes"] - len(own), 1)), 6)
    how["pace_ms"] = usual
    how["not_steady"] = left_out([row["visits"] for row in rows], usual)


def conditions(runtime, precision, device):
    """How a table was measured, in words."""
    if device == "cpu":
        hardware = "{} CPUs, {} threads".format(os.cpu_count(), torch.get_num_threads())
    else:
        hardware = torch.cuda.get_device_name(0)
    return {
        "runtime": runtime,
        "precision": precision,
        "hardware": ", ".join(part for part in (platform.machine(), processor(), hardware) if part),
        "clocks": clocks(),
        "statistics": "mean of the middle half of the passes of a round, after a warm-up; networks in another order in each round",
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def processor():
    """The processor's name as Linux tells it, else as Python does."""
    return _line("/proc/cpuinfo", "model name") or platform.processor()


def clocks():
    """Governor and highest clock of the first processor as Linux tells them; what is not told is said to be unknown."""
    folder = "/sys/devices/system/cpu/cpu0/cpufreq/"
    governor, most = _line(folder + "scaling_governor"), _line(folder + "scaling_max_freq")
    known = ["governor " + governor] if governor else []
    known += ["up to {:.0f} MHz".format(int(most) / 1000)] if most else []
    seen = _line("/proc/cpuinfo", "cpu MHz")
    known += ["{} MHz seen".format(seen)] if seen else []
    return ", ".join(known) or "unknown"


def _line(path, key=""):
    """The first line of a file, or what follows the colon in the first one that begins with `key`; empty if there isn't one."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(key):
                    return (line.split(":", 1)[1] if key else line).strip()
    except (OSError, IndexError):
        pass
    return ""


def memory_bytes():
    """Memory of the machine, None if the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


def write_text(path, text):
    """Write a file atomically."""
    temporary = "{}.{}.part".format(path, os.getpid())
    with open(temporary, "w") as file:
        file.write(text)
    os.replace(temporary, path)


def file_text(record):
    """The text of a device file with one line for each row."""
    rows = [json.dumps(row) for table in record["tables"] for row in table["rows"]]
    hollow = dict(record, tables=[dict(table, rows=["@row"] * len(table["rows"])) for table in record["tables"]])
    parts = json.dumps(hollow, indent=1).split(json.dumps("@row"))
    return "".join(part + row for part, row in zip(parts, rows + ["\n"]))


def refuse(sentence):
    """End with a sentence on a mistake of the user's and the exit code of one, 2."""
    sys.stderr.write("error: {}\n".format(sentence))
    raise SystemExit(2)


def read_earlier(path, name):
    """The device file at `path` to add rounds to, or a new one."""
    new = {"format": "merino device", "version": 2, "name": name, "description": "", "source": "measured by profile_standalone.py"}
    if memory_bytes():
        new["ram_bytes"] = memory_bytes()
    new["tables"] = []
    if not os.path.exists(path):
        return new
    try:
        with open(path) as file:
            record = json.load(file)
        if record["version"] == 1:
            refuse("{0} is of version 1; rewrite it with python -m formulation.convert {0}, or name another --output".format(path))
        if [record[key] for key in ("format", "version", "name")] != [new[key] for key in ("format", "version", "name")]:
            raise ValueError
        if not all("prices" not in table and all("visits" in row for row in table["rows"]) for table in record["tables"]):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        refuse("{} is not a file that this script wrote for {}; name another --output".format(path, name))
    return record


def parse_arguments(arguments):
    """The command line; see --help."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--name", required=True, help="of the device: lower-case letters, digits, hyphens")
    parser.add_argument("--output", metavar="FILE", help="device file (default NAME.json); rounds are added to one that exists")
    parser.add_argument("--phases", default="prefill", help="prefill, decode or both, with a comma (default prefill)")
    parser.add_argument(
        "--precisions", default="float32", help="of {}, with commas (default float32)".format(", ".join(PRECISIONS))
    )
    parser.add_argument("--seq-len", type=int, default=128, metavar="T", help="tokens of a query, or in the cache (default 128)")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="sequences at a time (default 1)")
    parser.add_argument("--networks", type=int, default=60, metavar="N", help="networks to measure (default 60, at least 20)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times to measure all of them (default 3)")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="to time each network for in a round (default 0.3)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda (default: cuda, else cpu)"
    )
    options = parser.parse_args(arguments)
    for flag, known in (("phases", PHASES), ("precisions", PRECISIONS)):
        chosen = getattr(options, flag).split(",")
        if not set(chosen) <= set(known):
            parser.error("--{} is {!r}; expected some of {}".format(flag, getattr(options, flag), ", ".join(known)))
        setattr(options, flag, chosen)
    if not all(character in "abcdefghijklmnopqrstuvwxyz0123456789._-" for character in options.name) or options.name[:1] in (
        "",
        ".",
        "-",
        "_",
    ):
        parser.error("--name is {!r}; expected lower-case letters, digits, dots and hyphens".format(options.name))
    for flag, least in (("seq_len", 1), ("batch", 1), ("networks", LEAST), ("rounds", 1)):
        if getattr(options, flag) < least:
            parser.error("--{} is {}; expected at least {}".format(flag.replace("_", "-"), getattr(options, flag), least))
    if options.seq_len >= SURROUNDINGS["positions"]:
        parser.error("--seq-len is {}; expected less than {}, the positions".format(options.seq_len, SURROUNDINGS["positions"]))
    if options.device not in ("cpu", "cuda") or (options.device == "cuda" and not torch.cuda.is_available()):
        parser.error("--device is {!r}, which PyTorch does not find here".format(options.device))
    if options.device == "cuda" and "int8" in options.precisions:
        parser.error("--precisions int8 runs on the CPU only; add --device cpu")
    return options


def main(arguments=None):
    """Measure, round by round; the file is written after each, so that a stop loses no finished round."""
    options = parse_arguments(arguments)
    path = options.output or options.name + ".json"
    record = read_earlier(path, options.name)
    networks = plan(options.networks)
    tables = [(phase, precision) for phase in options.phases for precision in options.precisions]
    total, done, start = options.rounds * len(tables) * len(networks), 0, time.time()
    for _ in range(options.rounds):
        for phase, precision in tables:
            table = table_of(record, phase, precision, options, networks)
            for (blocks, _), timed in measured_round(networks, table, precision, options):
                done += 1
                left = (time.time() - start) / done * (total - done)
                text = "\r{}/{} networks, {} left, {} {} {} {:.2f} ms   "
                clock = "{:d}:{:02d} min".format(int(left) // 60, int(left) % 60)
                sys.stderr.write(text.format(done, total, clock, phase, precision, blocks_text(blocks), 1000 * trimmed_mean(timed)))
                sys.stderr.flush()
            write_text(path, file_text(record))
    sys.stderr.write("\n")
    print("Written to {}: {} tables of {} networks".format(path, len(record["tables"]), len(networks)))
    poor = [table for table in record["tables"] if sum(bool(row["rounds_ms"]) for row in table["rows"]) < LEAST]
    for table in record["tables"]:
        print("{}: {}".format(table["name"], table["how"]["not_steady"]))
    if poor:
        names = ", ".join(table["name"] for table in poor)
        text = "error: {}: fewer than {} networks were measured at the usual pace; run the command again, with nothing beside it"
        raise SystemExit(text.format(names, LEAST))


def table_of(record, phase, precision, options, networks):
    """The table to add a round to, made if there isn't one; SystemExit where it holds other networks or another workload."""
    name = "torch-{}-{}".format(precision, phase)
    workload = {"phase": phase, "seq_len": options.seq_len, "batch": options.batch, "logits": "last"}
    for table in record["tables"]:
        if table["name"] == name:
            known = [(row["blocks"], row["shared"]) for row in table["rows"]]
            if table["workload"] != workload or known != [(blocks_record(blocks), shared) for blocks, shared in networks]:
                refuse("{} was measured with other --seq-len, --batch or --networks; name another --output".format(name))
            return table
    table = {
        "name": name,
        "unit": "ms",
        "workload": workload,
        "how": conditions("PyTorch {}, plain network".format(torch.__version__), precision, options.device),
        "surroundings": SURROUNDINGS,
        "rows": [new_row(blocks, shared) for blocks, shared in networks],
    }
    record["tables"].append(table)
    return table


def measured_round(networks, table, precision, options):
    """Time every network, in an order of this round's own, and those again for which the machine was not steady.

    The rows change when all networks are done.
    """
    dtype = getattr(torch, "float32" if precision == "int8" else precision)
    embedding = table_on(options.device, dtype, SURROUNDINGS["vocabulary"], SURROUNDINGS["embedding_width"])
    earlier = [visit for row in table["rows"] for visit in row["visits"]]
    this_round = 1 + max([visit["round"] for visit in earlier] or [-1])
    order = list(range(len(networks)))
    random.Random(this_round).shuffle(order)
    visits, pace = {}, Pace(options.device)
    for number in remaining(order, visits, [visit["pace_ms"] for visit in earlier]):
        blocks, shared = networks[number]
        positions = table_on(options.device, dtype, SURROUNDINGS["positions"] + FIRST_POSITION, blocks[0][0])
        network = Network(blocks, embedding, positions, shared).eval()
        if precision == "int8":
            network = in_8_bits(network.with_own_head())
        network = network.to(device=options.device, dtype=None if precision == "int8" else dtype)
        check_precision(network, precision)
        run = pass_of(network, blocks, table["workload"], precision, options.device)
        timed, seen = pace.around(run, options.seconds)
        visits.setdefault(number, []).append(visit_of(this_round, timed, seen))
        yield networks[number], timed
    for number, own in visits.items():
        table["rows"][number]["visits"] += own
    settle(table)


def remaining(order, visits, earlier):
    """All of `order` once, then again and again those that have no clean visit, ATTEMPTS times at most; `earlier` are paces."""
    for _ in range(ATTEMPTS):
        paces = earlier + [visit["pace_ms"] for own in visits.values() for visit in own]
        usual = usual_pace(paces) if paces else None
        for number in [k for k in order if k not in visits or not clean_rounds(visits[k], usual)]:
            yield number


if __name__ == "__main__":
    main()
