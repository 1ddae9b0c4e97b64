"""Training and decoding on a device, through torch alone: how fast, and how far from what the CPU
computes from the same seed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from minitransformer import ModelConfig, Transformer, bench, generate
from minitransformer.train import TrainConfig, initialize, plan, train

from .compiled import Step
from .gpu_layers import captured, finished
from .presets import SIZES

SETTLED = 5  # steps and their compilation that are left out of a pace
PROMPT = 8
SEED, TWIN, LARGE, LEAST = "1 × 128 (the original's)", "2 × 128", "12 × 768 (124M)", "1 × 32"
TINY = ModelConfig(vocab_size=64, d_model=32)
# Of each the model and 20 updates: the paper's two blocks, GPT-2's shape in a batch that a CPU can
# afford as well, and the least that shows that all of it runs.
TRAINED = {
    TWIN: (
        ModelConfig(n_layers=2),
        plan("good", steps=20, batch_size=64, window=256, short_steps=0, warmup=5),
    ),
    LARGE: (
        SIZES["GPT-2 124M"][0],
        TrainConfig(
            steps=20, batch_size=8, window=256, lr=6e-4, warmup=5, betas=(0.9, 0.95),
            weight_decay=0.1, initialization="scaled",
        ),
    ),
    LEAST: (TINY, TrainConfig(steps=6, batch_size=4, window=16, warmup=2)),
}  # fmt: skip
DECODED = {SEED: ModelConfig(), LARGE: SIZES["GPT-2 124M"][0], LEAST: TINY}
PRECISIONS = {
    "FP32": {},
    "bf16": {"precision": "bfloat16"},
    "bf16, compiled": {"precision": "bfloat16", "compile": True},
}
ON_CPU = "FP32 on the CPU"
EAGER, GRAPH, COMPILED = "eager, static cache", "CUDA graph", "torch.compile, reduce-overhead"


def batches(cfg: ModelConfig, recipe: TrainConfig, device, seed: int = 0) -> list[torch.Tensor]:
    """Ids (B, window + 1) of every step, on the device: words as frequent as 1 over their rank."""
    generator = torch.Generator().manual_seed(seed)
    weights = 1 / torch.arange(1, cfg.vocab_size + 1)
    shape = recipe.steps, recipe.batch_size, recipe.window + 1
    drawn = torch.multinomial(weights, shape[0] * shape[1] * shape[2], True, generator=generator)
    return list(drawn.view(shape).to(device))


def trained(shape: str, way: str, device: str, seed: int = 0) -> dict:
    """A row of one training: tokens a second of the settled steps, the first step's seconds, the
    MiB that it took on a GPU beside those predicted, the first loss and the last."""
    cfg, recipe = TRAINED[shape]
    place = torch.device("cpu" if way == ON_CPU else device)
    recipe = replace(recipe, **PRECISIONS.get(way, {}))
    model = initialize(Transformer(cfg), recipe.initialization, seed).to(place)
    ids, on_gpu = batches(cfg, recipe, place, seed), place.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(place)
    rows = pd.DataFrame(train(model, ids.__getitem__, recipe))
    pace = rows.seconds[min(SETTLED, len(rows) - 1) :].median()
    predicted = bench.training_bytes(cfg, recipe.batch_size, recipe.window)
    return {
        "shape": shape, "way": way, "batch": f"{recipe.batch_size} × {recipe.window}",
        "tokens_per_s": recipe.batch_size * recipe.window / pace, "first_step_s": rows.seconds[0],
        "predicted_mib": sum(predicted.values()) / 2**20,
        "measured_mib": torch.cuda.max_memory_allocated(place) / 2**20 if on_gpu else None,
        "steps": len(rows), "first_nats": rows.loss_nats[0], "last_nats": rows.loss_nats.iloc[-1],
    }  # fmt: skip


def beside(rows: pd.DataFrame) -> pd.DataFrame:
    """Each training beside the CPU's of the same shape: how many times as fast, and the difference
    of the last losses; NaN where that was not run."""
    cpu = rows[rows.way == ON_CPU].set_index("shape")
    faster = rows.tokens_per_s / rows["shape"].map(cpu.tokens_per_s)
    apart = rows.last_nats - rows["shape"].map(cpu.last_nats)
    return rows.assign(over_cpu=faster, nats_from_cpu=apart)


def oracle(shape: str, new: int, seed: int = 0) -> list[int]:
    """The greedy tokens that the CPU finds by recomputing everything, after `prompt`."""
    cfg = DECODED[shape]
    return generate(model_of(cfg, seed), prompt(cfg), new, cache=None)[0].tolist()


def model_of(cfg: ModelConfig, seed: int) -> Transformer:
    return initialize(Transformer(cfg), "scaled", seed).eval()


def prompt(cfg: ModelConfig) -> torch.Tensor:
    """Drawn ids (1, PROMPT)."""
    return torch.randint(cfg.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def decoded(shape: str, way: str, wanted: list[int], repeats: int, device: str, seed=0) -> dict:
    """A row of one way to decode: microseconds a step (median of `repeats` loops), those that
    reading the weights once takes, and how many new tokens are the oracle's before one is not."""
    cfg, place = DECODED[shape], torch.device(device)
    given, new = prompt(cfg).to(place), len(wanted) - PROMPT
    model = model_of(cfg, seed).to(place)
    if way == EAGER:
        run, steps = partial(generate, model, given, new), new
    else:
        step = stepping(way, Step(model, len(wanted)).eval().to(place), place)
        run, steps = partial(stepped, step, given, new), len(wanted) - 1
    tokens = run()[0].tolist()
    pairs = zip(wanted[PROMPT:], tokens[PROMPT:], strict=True)
    agreed = next((i for i, (a, b) in enumerate(pairs) if a != b), new)
    samples = bench.interleaved({way: lambda: finished(run, place)}, repeats)
    us = 1e6 * samples.seconds.median() / steps
    return {"shape": shape, "way": way, "us_per_step": us, "tokens": new, "agreed": agreed}


def stepping(way: str, step: Step, device) -> Callable:
    """A step as the device is to be given it: a token (1, 1) and a place (1,) -> the next token,
    which the next call overwrites."""
    if way == COMPILED:
        return torch.compile(step, mode="reduce-overhead", fullgraph=True)
    if device.type != "cuda":  # whatever else the machine has: what runs here is not recorded
        raise ValueError(f"a CUDA graph is of a GPU, and this is {device}")
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    place = torch.zeros(1, dtype=torch.long, device=device)
    # What it writes at place 0 meanwhile the first token of a text overwrites.
    replay = captured(partial(step, token, place))

    def call(own, at):
        token.copy_(own), place.copy_(at)
        return replay()

    return call


def stepped(step: Callable, given: torch.Tensor, new: int) -> torch.Tensor:
    """Prompt and greedy continuation (1, T + new), one step a token; nothing comes back from the
    device on the way."""
    ids, places = list(given.split(1, dim=1)), torch.arange(given.shape[1] + new).to(given.device)
    for i in range(len(places) - 1):
        following = step(ids[i], places[i : i + 1])
        if i == len(ids) - 1:
            ids.append(following.clone())
    return torch.cat(ids, dim=1)
