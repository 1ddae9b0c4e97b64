"""Several texts at once: beams, batches of unequal prompts, and a server under load."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import BlockPool
from minitransformer.checkpoint import load
from minitransformer.decode import Request, beam, generate, generate_batch, in_float64
from minitransformer.model import ModelConfig, Transformer

from .processes import as_columns, over_processes, speedup

BATCH_KINDS = ("static", "paged")
ROWS = (1, 2, 4, 8, 16, 32)  # sequences of one timed forward
LOADS = (0.3, 0.6, 0.9, 1.2)  # of a load of 1, which asks for all that busy places can do
POLICIES = ("continuous", "static")
SLOTS = 8  # places of the server
STREAMS = 5  # draws of requests and arrivals, the unit of the interval


@dataclass(frozen=True)
class Several:
    """What is decoded side by side: prompts of beams and of one batch, as ids (T,)."""

    prompts: list[torch.Tensor]
    widths: list[int]  # of the beams, 1 (greedy) among them
    beam_tokens: int
    batch: list[torch.Tensor]
    new: int  # tokens after each prompt of the batch


def several(text: np.ndarray, context: int, seed: int, beam_tokens: int, beam_width: int):
    """Four prompts for beams of up to `beam_width`, and eight for a batch."""
    widths, new = sorted({1, 2, 4, beam_width}), min(40, context - 32)
    return Several(draw(text, 4, seed + 1), widths, beam_tokens, draw(text, 8, seed), new)


def draw(text: np.ndarray, requests: int, seed: int, short=(4, 25)):
    """Prompts of random length from random places of a text, as ids (T,)."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(text) - 32, requests)
    sizes = rng.integers(*short, requests)
    pairs = zip(starts, sizes, strict=True)
    return [torch.from_numpy(text[s : s + k].astype(np.int64)) for s, k in pairs]


def measure(folder, many: Several, repeats: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: `beams` by width, `batches` against one by one, and `rows`: a forward
    over so many sequences."""
    model, batch = load(folder / "model")[0], many.batch
    ways = {str(w): partial(searched, model, many, w) for w in many.widths}
    apart = {"one by one": partial(alone, model, batch, many.new)}
    kinds = {k: partial(generate_batch, model, batch, many.new, cache=k) for k in BATCH_KINDS}
    ids = batch[0].repeat(-(-64 // len(batch[0])))[None]
    steps = bench.step_times(model, ids, [1], ROWS, past=8, repeats=10 * repeats)
    return {
        "beams": bench.interleaved(ways, repeats),
        "batches": bench.interleaved(apart | kinds, repeats),
        "rows": steps[steps.phase == "rows"],
    }


def row_seconds(samples: pd.DataFrame) -> pd.Series:
    """Seconds of a forward over so many sequences: lower deciles, which noise cannot raise."""
    return samples.groupby("tokens").seconds.quantile(0.1)


def searched(model, many: Several, width: int, length_penalty: float = 1.0):
    options = {"width": width, "length_penalty": length_penalty}
    return [beam(model, p[None], many.beam_tokens, **options)[0] for p in many.prompts]


def alone(model, prompts, new):
    return [generate(model, p[None], new)[0] for p in prompts]


def beams(model, many: Several, timed: pd.DataFrame, length_penalty: float = 1.0) -> pd.DataFrame:
    """A row a width: log-probability a token, texts better than greedy, and time against greedy."""
    best = {w: searched(model, many, w, length_penalty) for w in many.widths}
    rows = []
    for w, found in best.items():
        pairs = zip(found, best[1], strict=True)
        better = sum(b.log_probability > g.log_probability + 1e-6 for b, g in pairs)
        mean = np.mean([b.log_probability for b in found]) / many.beam_tokens
        row = {"width": w, "log-probability per token": mean, "texts_better_than_greedy": better}
        row["texts"] = len(found)
        rows.append(row | as_columns("time_ratio", speedup(timed, str(w), "1")))
    return pd.DataFrame(rows)


def batches(model, many: Several, timed: pd.DataFrame, rows_seconds: pd.Series):
    """A row a kind of cache: texts equal to their own run in float64, and time against one by one.

    `rows_seconds` are the seconds of a forward over so many sequences; they bound the gain."""
    double, prompts, new = in_float64(model), many.batch, many.new
    wanted = alone(double, prompts, new)
    n, rows = len(prompts), []
    limit = n * rows_seconds[1] / np.interp(n, rows_seconds.index, rows_seconds)
    for kind in BATCH_KINDS:
        found = generate_batch(double, prompts, new, cache=kind)
        same = sum(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        row = {"batch": kind, "equal": same, "texts": len(prompts)}
        row |= as_columns("measured_speedup", speedup(timed, "one by one", kind))
        rows.append(row | {"limit_speedup": limit})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Stream:
    """Requests and when they come: prompts, tokens asked for, and the gaps between them in units
    of their mean."""

    prompts: list[torch.Tensor]
    sizes: np.ndarray
    gaps: np.ndarray

    def asked(self, load: float, capacity: float) -> list[Request]:
        """The requests at a `load` of what the server can do, `capacity` requests a second."""
        arrivals = np.cumsum(self.gaps) / (load * capacity)
        rows = zip(self.prompts, self.sizes, arrivals, strict=True)
        return [Request(p, int(n), arrival=float(at)) for p, n, at in rows]


def stream(text, requests: int, seed: int, context: int) -> Stream:
    """A stream of `requests` from random places of a text."""
    rng = np.random.default_rng(seed + 1)
    longest = max(min(80, context - 40), 4)
    sizes = 4 + rng.geometric(1 / 20, requests).clip(max=longest)
    gaps = rng.exponential(1.0, requests)
    return Stream(draw(text, requests, seed), sizes, gaps / gaps.mean())


def simulated(model, drawn: Stream, rows_seconds: pd.Series, load, policy, slots: int = SLOTS):
    """What a stream's service gives under one policy, see `service_of`: real tokens, and a clock on
    which every forward takes what `rows_seconds` says for as many sequences as it is fed tokens. At
    a load of 1 they ask for what `slots` serve that are always busy: each request costs a forward
    over its prompt, which gives its first token, and its share of a step for every other."""

    def service(tokens):
        return float(np.interp(tokens, rows_seconds.index, rows_seconds))

    first = np.mean([service(len(prompt)) for prompt in drawn.prompts])
    capacity = 1 / (first + (drawn.sizes.mean() - 1) * service(slots) / slots)
    options = {"service": service, "continuous": policy == "continuous"}
    pool, asked = BlockPool(model.cfg, slots * 8), drawn.asked(load, capacity)
    found = service_of(bench.simulate(model, pool, asked, slots, **options))
    return found | {"capacity_requests_per_s": capacity}


def served(model, text, requests: int, rows_seconds: pd.Series, seed: int, slots: int = SLOTS):
    """Continuous against static batching under load, on one stream; the same at every call."""
    drawn = stream(text, requests, seed, model.cfg.context)
    cases = [dict(load=load, policy=policy) for load in LOADS for policy in POLICIES]
    found = [simulated(model, drawn, rows_seconds, **case, slots=slots) for case in cases]
    return pd.DataFrame(cases).join(pd.DataFrame(found))


def at_most_load(cfg, text, requests: int, samples: pd.DataFrame, seed: int) -> dict:
    """Tokens a second of continuous over those of static batching at the highest load: mean and
    interval over `STREAMS`, of which each meets the times of another process in turn. The tokens
    of a model that costs next to nothing do: they do not move the clock."""
    least = ModelConfig(vocab_size=cfg.vocab_size, d_model=8, n_heads=1, context=cfg.context)
    small, ratios = Transformer(least).eval(), []
    times = [row_seconds(own) for _, own in samples.groupby("process")]
    for i in range(STREAMS):
        drawn, seconds = stream(text, requests, seed + 2 * i, cfg.context), times[i % len(times)]
        found = [simulated(small, drawn, seconds, LOADS[-1], policy) for policy in POLICIES]
        ratios.append(found[0]["tokens_per_s"] / found[1]["tokens_per_s"])
    return over_processes(ratios)


def service_of(done) -> dict:
    """What a simulated service gave: tokens a second, first tokens, time a token after them."""
    first = np.array([s.first_token_s for s in done])
    return {
        "tokens_per_s": sum(len(s.tokens) for s in done) / max(s.times[-1] for s in done),
        "first_token_ms": 1e3 * np.median(first),
        "first_token_p95_ms": 1e3 * np.quantile(first, 0.95),
        "token_ms": 1e3 * np.nanmedian([s.token_s for s in done]),
        "preempted": sum(s.preemptions for s in done),
    }
