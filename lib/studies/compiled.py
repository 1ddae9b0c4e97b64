"""What PyTorch's own compiler makes of a decode step: one graph, compiled once for a cache of one
size, beside the eager loop.

It needs a C++ compiler; where there is none, or it fails, there are no times and a reason."""

import time
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.decode import generate

from .native import COMPILED, EAGER
from .processes import over_processes, process_medians
from .texts import as_row


class Step(nn.Module):
    """One cached step in tensors alone, so that it can be traced once: a token (1, 1) at a place
    (1,) -> the greedy token after it (1, 1). Keys and values lie in buffers of `capacity` tokens,
    those to come masked."""

    def __init__(self, model, capacity: int):
        super().__init__()
        self.model, cfg = model, model.cfg
        shape = cfg.n_layers, 1, cfg.kv_heads, capacity, cfg.head_dim
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))

    def forward(self, token, place):
        seen = torch.arange(self.keys.shape[3], device=place.device) <= place  # (capacity,)
        step = _Places(place, seen[None], list(zip(self.keys, self.values, strict=True)))
        return self.model.head(self.model.states(token, step)).argmax(-1)


class _Places:
    """What a model asks of a step of a cache: positions, a mask, and a store for each layer."""

    last = 0  # no token passes the context: the capacity was checked

    def __init__(self, positions, mask, stores):
        self.positions, self.mask, self.stores = positions, mask, stores

    def __getitem__(self, layer):
        return _Store(self.positions, *self.stores[layer])


class _Store:
    """Keys and values of one layer."""

    def __init__(self, place, keys, values):
        self.place, self.keys, self.values = place, keys, values

    def update(self, k, v):
        self.keys.index_copy_(2, self.place, k)
        self.values.index_copy_(2, self.place, v)
        return self.keys, self.values


@torch.no_grad()
def continued(step, prompt: list[int], new: int) -> list[int]:
    """The prompt's tokens fed one by one, then `new` greedy ones."""
    ids = list(prompt)
    for place in range(len(prompt) + new - 1):
        token = step(torch.tensor([[ids[place]]]), torch.tensor([place]))
        if place == len(ids) - 1:
            ids.append(int(token))
    return ids


def measure(folder, text: np.ndarray, plan) -> dict[str, pd.DataFrame]:
    """Samples of one process: `compiled`, loops of the longest of a `latency.Plan`'s lengths, one
    thread; and `compiling`, the seconds of the first call, whether its
    tokens are the eager ones, or the reason why there is none."""
    torch.set_num_threads(1)
    model, new = load(folder / "model")[0], max(plan.lengths)
    prompt = text[: plan.prompt_tokens].tolist()
    step = torch.compile(Step(model, len(prompt) + new).eval(), fullgraph=True)
    anew = {"force_disable_caches": True, "compile_threads": 1}  # the first call is what it costs
    began = time.perf_counter()
    try:
        with torch._inductor.config.patch(anew):
            continued(step, prompt[:1], 2)
    except Exception as error:  # of whatever kind the compiler behind it raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return {"compiling": pd.DataFrame([{"seconds": np.nan, "same": False, "reason": reason}])}
    seconds = time.perf_counter() - began
    eager = partial(generate, model, as_row(prompt), new)
    own = partial(continued, step, prompt, new)
    same = own() == eager()[0].tolist()
    timed = bench.interleaved({EAGER: eager, COMPILED: own}, plan.repeats, warmup=0)
    told = pd.DataFrame([{"seconds": seconds, "same": same, "reason": ""}])
    return {"compiled": timed.assign(tokens=new), "compiling": told}


def us_per_token(samples: dict[str, pd.DataFrame], loop: str = COMPILED) -> float:
    """Microseconds a token of the compiled loop, or of the eager one beside it, over processes; NaN
    where there is none."""
    if "compiled" not in samples:
        return float("nan")
    seconds = over_processes(process_medians(samples["compiled"])[loop])["estimate"]
    return 1e6 * seconds / samples["compiled"].tokens.iloc[0]


def in_words(samples: dict[str, pd.DataFrame]) -> str:
    """What compiling took and gave, in a sentence."""
    if "compiling" not in samples:
        return "torch.compile is timed in longer profiles."
    found = samples["compiling"]
    if "compiled" not in samples:
        return f"torch.compile has no row here: {found.reason.iloc[0]}."
    times = process_medians(samples["compiled"])
    gain = over_processes(times[EAGER] / times[COMPILED])
    tokens = "the tokens are eager PyTorch's" if found.same.all() else "its tokens differ"
    return (
        f"In one process torch.compile takes {found.seconds.max():.0f} s once and makes a step "
        f"{gain['estimate']:.2f} times as fast as eager PyTorch, which takes "
        f"{us_per_token(samples, EAGER):,.0f} µs there on one thread; {tokens}."
    )
