"""Is a quantized model faster? Decode steps on every kernel, and single products."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import make_cache
from minitransformer.checkpoint import load
from minitransformer.decode import generate, last_logits
from minitransformer.evaluate import token_losses
from minitransformer.quant import (
    KERNELS,
    TOLERANCE,
    KernelError,
    accelerate,
    quantize,
    quantize_structure,
    resident_bytes,
)
from minitransformer.quant.layers import QuantWeight

from . import native
from .formats import formats, made, seed_rule
from .processes import as_columns, over_processes, process_medians, speedup
from .words import plain, with_interval
from .workers import one_thread

SUITS = {
    "int8 channel": ("int8pack", "fbgemm", "onednn", "onnxruntime"),
    "int4 g32": ("int4pack", "onnxruntime"),
    "int4 g128": ("int4pack", "onnxruntime"),
    "int2 g32": ("onnxruntime",),
}
WHOLE = ("int8 channel", "int4 g32")  # formats in which whole models are timed
PLAIN = "PyTorch"  # the kernel of FP32 itself
STEPS = 10  # decode steps of one timing
AS_STORED = ("each call", "once")  # ways that compute with the weights as they were rounded


def running(model) -> tuple[dict, list, list]:
    """The model on every kernel that runs here, by "format, kernel"; the largest error that each
    shows at load; and why the others refuse."""
    ways, checked, refused = {"fp32": model}, [], []
    for name, packed in made(model, WHOLE).items():
        ways[f"{name}, each call"] = packed
        ways[f"{name}, once"] = accelerate(packed, "dequantized")
        for kernel in SUITS[name]:
            try:
                own = accelerate(packed, kernel)
            except KernelError as error:
                refused.append((f"{name}, {kernel}", str(error)))
                continue
            ways[f"{name}, {kernel}"] = own
            errors = [m.error for m in own.modules() if isinstance(m, KERNELS[kernel])]
            line = f"{name}, {kernel}: largest relative error of {len(errors)} layers"
            checked.append((line, max(errors), f"≤ {TOLERANCE}"))
    return ways, checked, refused


def measure(folder, repeats: int, seed: int) -> dict[str, pd.DataFrame]:
    """Samples of one process, one thread: `steps`, decode steps after 32 tokens on every kernel;
    and `native_steps` where there is an engine."""
    torch.set_num_threads(1)
    model = load(folder / "model")[0]
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(model.cfg.vocab_size, (1, 32), generator=generator)
    ways = {name: stepper(own, prompt) for name, own in running(model)[0].items()}
    steps = bench.interleaved(ways, repeats, warmup=2).assign(tokens=STEPS)
    return {"steps": steps} | native.steps(model, 8 * repeats)  # a step of it is short


def measure_seed(folder, repeats: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: `seed`, the original's 50 tokens with a cache; and the time to
    dequantize a head with and without zero-points: `rules` by the original's rule, one number for
    the whole head, and `heads` in this library's int8."""
    control, model = (load(folder / name)[0] for name in ("model-control", "model"))
    start = torch.arange(4, 14)[None]
    theirs = {name: partial(generate, m, start, 50) for name, m in seed_models(control).items()}
    rules = {"symmetric": "int8 channel", "zero-points": "int8 channel asym"}
    heads = {name: made(model, [own])[own].head.weight for name, own in rules.items()}
    return {
        "seed": bench.interleaved(theirs, repeats),
        "rules": bench.interleaved(by_rule(control), 10 * repeats, warmup=3),
        "heads": bench.interleaved(heads, 10 * repeats, warmup=3),
    }


def by_rule(control) -> dict:
    """The original's head from its int8 codes: times a scale, and less a zero-point before that."""
    head = quantize(control, seed_rule(8)).head.weight
    codes = (head.integers() - 128).to(torch.int8)  # stored without a sign
    scale, zero = head.scale, torch.tensor(0.0)
    return {
        "symmetric": lambda: codes.float() * scale,
        "zero-points": lambda: (codes.float() - zero) * scale,
    }


def stepper(model, prompt, steps: int = STEPS):
    """A call that decodes `steps` tokens after the prompt and forgets them."""
    cache = make_cache(model.cfg, "static", capacity=prompt.shape[1] + 1)
    last_logits(model, prompt, cache)

    def call():
        for _ in range(steps):
            last_logits(model, prompt[:, :1], cache)
            cache.truncate(prompt.shape[1])

    return call


def seed_models(control) -> dict:
    """The original's models: FP32; int8; int4, a code kept in a byte; and int8 unpacked once."""
    eight, four = (quantize(control, seed_rule(bits)) for bits in (8, 4))
    inside = {name: m for name, m in four.named_modules() if isinstance(m, QuantWeight)}
    cells = {f"{name}.codes": m.integers() - 8 + 128 for name, m in inside.items()}
    unpacked = quantize_structure(control, seed_rule(8))
    unpacked.load_state_dict(four.state_dict() | cells)
    once = accelerate(eight, "dequantized")
    return {"fp32": control, "int8": eight, "int4": unpacked, "int8 once": once}


def step_table(samples: dict, ways: dict, engines: dict, sizes: pd.DataFrame) -> pd.DataFrame:
    """A row a way: microseconds a step, the time against FP32 in the same engine over processes,
    the memory held, and what it may be called (`bench.labels`). `engines` are the native models,
    {} where there is no engine."""
    files = sizes.set_index("format").file_bytes
    rows = [
        way_row(samples["steps"], name, "fp32", *split(name), resident_bytes(model), files)
        for name, model in ways.items()
    ]
    for name, engine in engines.items():
        own, table = native.STORED[name], samples["native_steps"]
        rows.append(way_row(table, name, "native FP32", own, "native", engine.nbytes, files))
    table = pd.DataFrame(rows)
    label = pd.Series(bench.labels(table.assign(high=table.high.fillna(np.inf))))
    return decided(table.assign(label=label))


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """Labels in which nothing is called slower by an interval that holds 1, or by none."""
    open_ = ~(table.low > 1) & (table.label == "slower")
    return table.assign(label=table.label.mask(open_, "not decided"))


def split(name: str) -> tuple[str, str]:
    """Format and kernel of a way that PyTorch runs."""
    own, _, kernel = name.partition(", ")
    return own, kernel.replace("once", "dequantized")


def way_row(samples, name: str, base: str, own: str, kernel: str, held: int, files) -> dict:
    """One row of `step_table`: `name` against `base`, of the format `own`."""
    seconds = over_processes(process_medians(samples)[name])["estimate"]
    return {
        "how": name,
        "format": own,
        "kernel": kernel,
        "step_us": 1e6 * seconds / samples.tokens.iloc[0],
        **as_columns("time_ratio", speedup(samples, name, base)),
        "resident_bytes": held,
        "resident_of_disk": held / files[own],
    }


def native_gains(table: pd.DataFrame) -> pd.DataFrame:
    """How many times as fast as FP32 each native format of `step_table` is."""
    own = table[(table.kernel == "native") & (table.format != "fp32")]
    times = {"times": 1 / own.time_ratio, "low": 1 / own.high, "high": 1 / own.low}
    return pd.DataFrame({"format": own.how, **times})


def quickest_formats(table: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Of the fastest kernel for int8 and that for int4 the slower: its time against FP32 in the
    same engine, with its interval. What computes in floating point is no such kernel."""
    real = table[(table.format != "fp32") & ~table.kernel.isin(["dequantized", "each call"])]
    best = real.loc[real.groupby(real.format.str[:4]).time_ratio.idxmin()]
    slower = best.loc[best.time_ratio.idxmax()]
    return slower.time_ratio, (slower.low, slower.high)


def here(table: pd.DataFrame, apart: str = "") -> str:
    """What was measured `apart`, and behind it what this CPU's kernels for quantized weights take,
    the quickest and those that are not the engine's."""
    value, ends = quickest_formats(table)
    told = "On this CPU, in the same engine, the slower of int8 and int4 takes by the quickest "
    told += f"kernel {with_interval(value, *ends)} times FP32's"
    rest = table[(table.format != "fp32") & ~table.kernel.isin(["dequantized", "native"])]
    own = rest[rest.kernel != "each call"].time_ratio
    if len(own):
        told += f"; PyTorch's and ONNX Runtime's kernels {own.min():.2f} to {own.max():.2f} times"
    return f"{apart} {told}.".lstrip()


def in_words(table: pd.DataFrame) -> str:
    """The native formats of `step_table` in a sentence of the chapter's answer."""
    own = table[(table.kernel == "native") & (table.format != "fp32")]
    if own.empty:
        return "The C engine, in which formats could be faster, was not measured here."
    times = " and ".join(f"{100 * row.time_ratio:.0f} % ({row.format})" for row in own.itertuples())
    return f"In the C engine, with int8 activations too, a step takes {times} of FP32's time."


def missing(refused: list) -> str:
    """What was not run, and why, in words."""
    reasons = [f"{name} ({plain(why)})" for name, why in refused]
    if why := native.missing():
        reasons.append(f"the C engine ({why})")
    return "; ".join(reasons) or "nothing"


def as_run(ways: dict, engines: dict, scores) -> pd.Series:
    """Perplexity added by each way as it runs, its own rounding of activations included; `scores`
    know the formats."""
    found = {}
    for name, model in {**ways, **engines}.items():
        own, _, kernel = name.partition(", ")
        if own in scores.kept and kernel in ("", *AS_STORED):
            scores.kept[name] = scores.kept[own]
        elif name not in scores.kept:
            scores.kept[name] = token_losses(model, scores.ids, scores.window)
        found[name] = scores.added(name)["added_percent"]
    return pd.Series(found, name="added_percent")


def products(widths, repeats: int, seed: int) -> pd.DataFrame:
    """Square matrices alone, times 1 and 64 tokens, every format on every kernel beside FP32, all
    on one thread, whatever a run trains on."""
    own = {name: formats()[name] for name in SUITS}
    with one_thread():
        table = bench.dispatch_table(widths, own, (1, 64), repeats, seed)
    share = 100 * table.limit_us / table.median_us
    table = table.assign(kernel=table.kernel.replace("none", PLAIN), speedup=1 / table.time_ratio)
    return decided(table.assign(limit_reached_percent=share))


def grids(products: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Speed against FP32: real kernels down, widths across, a panel a number of tokens."""
    real = products[(products.format != "fp32") & (products.kernel != "dequantized")]
    real = real[real.label != "refused"].assign(what=lambda t: t.format + ", " + t.kernel)
    wide = real.pivot(index="what", columns=["tokens", "width"], values="speedup")
    wide = wide.loc[real.what.unique()]
    return {f"{m} token{'s' * (m > 1)}": wide[m] for m in sorted({*real.tokens})}


def quickest(products: pd.DataFrame) -> pd.DataFrame:
    """For each number of tokens and width the quickest, FP32 among them, and what it holds over
    what it stores; where that is more than 1.1 times, also the quickest that holds no more."""
    ran = products[(products.label != "refused") & (products.kernel != "dequantized")]
    ran = ran.assign(what=lambda t: t.format + ", " + t.kernel)
    rows = []
    for (tokens, width), part in ran.groupby(["tokens", "width"]):
        small = part[part.resident_of_disk <= bench.dispatch.RESIDENT]
        for place in dict.fromkeys((part.median_us.idxmin(), small.median_us.idxmin())):
            best = part.loc[place]
            row = {"tokens": tokens, "width": width, "quickest": best.what}
            row |= best[["median_us", "time_ratio", "low", "high", "label"]].to_dict()
            rows.append(row | {"memory over what is stored": best.resident_of_disk})
    return pd.DataFrame(rows)


def by_width(products: pd.DataFrame) -> str:
    """Microseconds of the quickest product of one token at every width, in words."""
    best = quickest(products[products.tokens == 1]).drop_duplicates("width")
    return ", ".join(f"{row.median_us:.1f} µs at width {row.width:,}" for row in best.itertuples())


def against_native(products: pd.DataFrame) -> pd.DataFrame:
    """A row a number of tokens, width and format that the engine runs: the quickest other kernel of
    that format, and its time over the engine's; above 1 the engine is the quickest."""
    ran = products[products.label != "refused"]
    rows = []
    for (tokens, width, name), part in ran.groupby(["tokens", "width", "format"], sort=False):
        own, others = part[part.kernel == "native"], part[part.kernel != "native"]
        if len(own) and len(others):
            best = others.loc[others.median_us.idxmin()]
            row = {"tokens": tokens, "width": width, "format": name, "other": best.kernel}
            rows.append(row | {"times": best.median_us / own.median_us.iloc[0]})
    return pd.DataFrame(rows, columns=["tokens", "width", "format", "other", "times"])


def not_quickest(against: pd.DataFrame) -> str:
    """Where the engine is not the quickest, in words."""
    parts = []
    slow = against[against.times <= 1]
    for (name, tokens), part in slow.groupby(["format", "tokens"], sort=False):
        others = [f"{r.width:,} ({r.other}, {1 / r.times:.2f}×)" for r in part.itertuples()]
        rows = f"{tokens} token{'s' * (tokens > 1)}"
        parts.append(f"for {name} and {rows} at width {', '.join(others)}")
    return "; ".join(parts) or "nowhere"


def worst_error(checked) -> float:
    return max((error for _, error, _ in checked), default=np.nan)


def shown(speed: pd.DataFrame, added: pd.Series) -> pd.DataFrame:
    """`step_table` for readers, with the perplexity that each way adds."""
    table = speed.merge(added.rename_axis("how").reset_index())
    return table.rename(columns={"resident_of_disk": "memory over file"})


STATEMENT = (
    "Every layer of every timed kernel of PyTorch and ONNX Runtime, beside the dequantized "
    "reference, on random vectors and on neighbouring codes that add up to most and to least."
)


def proof(checked: list) -> tuple:
    """What the chapter's certificate shows of the errors that `running` found: its statement, its
    lines, and whether it holds."""
    return STATEMENT, checked, worst_error(checked) <= TOLERANCE
