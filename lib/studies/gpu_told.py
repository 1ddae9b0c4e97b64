"""What was measured on a GPU, in tables for readers and in sentences."""

import math
import re

import pandas as pd

from .gpu_layers import CALLS, FORMATS, FP32, GRAPH, ROTATED, quickest
from .gpu_models import EAGER, ON_CPU
from .words import plain, powered

ABSENT = "not examined: this machine has no CUDA device, and nothing measured on another is kept"
FROM_CPU = "from the CPU's, nats"
NEEDS_ROWS = re.compile(r"self\.size\(0\) needs to be greater than (\d+), but got \d+")
ROWS = r"its kernel asks for more than \1 rows"
KEYS = ["width", "tokens", "format"]
US = {CALLS: "called_us", GRAPH: "graph_us", ROTATED: "from_memory_us"}  # the last one counts
SHOWN = ["time_ratio", "low", "high", "least_us", "nbytes", "relative_error"]


def apart(made: dict) -> str:
    """Where and how it was measured, in a sentence or two; that it was not."""
    if not made:
        return ABSENT[0].upper() + ABSENT[1:] + "."
    card = made["device"]
    if "gpu" in made:
        card = f"one {made['gpu']} (CUDA {made['cuda']}, driver {made['driver']})"
    at = f" at commit {made['commit'][:12]}" if made.get("commit") else ""
    by = f", by `{made['command']}`" if "command" in made else ""
    threads = f"{made['threads']} thread" + "s" * (made["threads"] != 1)
    lost = "; ".join(f"{what} ({why})" for what, why in made["reasons"].items())
    return (
        f"Measured on {made['date']}{at} on {card}, with {made['cpu']}, {threads}, "
        f"torch {made['torch']}, in {made['seconds']:.0f} s{by}."
        + (f" Without a row: {lost}." if lost else "")
    )


def layers(table: pd.DataFrame) -> pd.DataFrame:
    """A row a width, number of rows and format: microseconds in each of the three ways, and the
    time over FP32's with its interval, weights from memory where they can be."""
    if table.empty:
        return table
    own = table[table.us.notna()]
    wide = own.pivot(index=KEYS, columns="way", values="us").reindex(columns=[*US])
    counts = own.assign(rank=own.way.map({way: i for i, way in enumerate(US)}))
    last = counts.sort_values("rank").groupby(KEYS).last()[SHOWN]
    found = wide.rename(columns=US).round(2).join(last).reset_index()
    found["relative_error"] = found.relative_error.map("{:.1e}".format).map(powered)
    place = {name: i for i, name in enumerate(FORMATS)}
    found = found.sort_values(KEYS, key=lambda c: c.map(place) if c.name == "format" else c)
    return found.rename(columns={"tokens": "rows"}).reset_index(drop=True)


def refused(table: pd.DataFrame) -> str:
    """Which formats have no row, and why, in a sentence; "" where all have."""
    if table.empty:
        return ""
    said, lost = [], table[table.us.isna()]
    for (name, reason), part in lost.groupby(["format", "reason"], sort=False):
        rows = " and ".join(f"{m:.0f}" for m in sorted({*part.tokens}))
        said.append(f"{name}, rows {rows} ({NEEDS_ROWS.sub(ROWS, plain(reason))})")
    return f" Without a row: {'; '.join(said)}." if said else ""


def drawn(table: pd.DataFrame, tokens: int = 1) -> pd.DataFrame:
    """Microseconds by width and format, replayed as a graph: width, format, us."""
    own = table[(table.way == GRAPH) & (table.tokens == tokens)]
    return own[["width", "format", "us"]].reset_index(drop=True)


def layer_sentence(table: pd.DataFrame) -> str:
    """The widest layer with its weights from memory, at each number of rows, by the quickest kernel
    for so many bits, whose format is named; and the narrowest, called from Python."""
    if table.empty:
        return "No layer was measured."
    widest, narrow = int(table.width.max()), int(table.width.min())
    said = []
    for m, best in quickest(table)[::-1].groupby("tokens"):
        parts = [f"{100 * row.time_ratio:.0f} % (“{row.format}”)" for row in best.itertuples()]
        rows = "one row takes" if m == 1 else f"{m:.0f} rows take"
        said.append(f"{rows} {' and '.join(parts)}")
    first = table[(table.width == narrow) & (table.way == CALLS) & (table.tokens == 1)]
    base = first.us[first.format == FP32].min()
    small = f"width {narrow:,}, called from Python, a row takes {first.us.min():.1f} to "
    small += f"{first.us.max():.1f} µs in the formats that take one, {base:.1f} in FP32."
    if not said:
        return f"At {small}"
    return (
        f"At width {widest:,}, weights from memory, by the quickest kernels for so many bits, "
        f"{', '.join(said)} of FP32's time; at {small}"
    )


def models(table: pd.DataFrame) -> pd.DataFrame:
    """The decoding or training table; what the page would give too many digits is rounded."""
    own = table.round({"tokens_per_s": 0, "first_step_s": 2, "predicted_mib": 0, "measured_mib": 0})
    return own.rename(columns={"over_cpu": "times the CPU's", "nats_from_cpu": FROM_CPU})


def decode_sentence(table: pd.DataFrame) -> str:
    """The quickest way of each shape beside the eager one, and whether tokens are the oracle's."""
    if table.empty:
        return "No decode step was measured."
    said = []
    for shape, part in table.groupby("shape", sort=False):
        best, eager = part.loc[part.us_per_step.idxmin()], part[part.way == EAGER]
        beside = f" ({eager.us_per_step.iloc[0]:,.0f} eager)" if len(eager) else ""
        said.append(f"{shape} takes {best.us_per_step:,.0f} µs a step by {best.way}{beside}")
    short = table[table.agreed < table.tokens]
    apart = [f"{r.shape}, {r.way}, from new token {r.agreed + 1}" for r in short.itertuples()]
    same = f"are the CPU's, {table.tokens.max()} of each"
    if apart:
        same = f"differ from the CPU's: {'; '.join(apart)}"
    return f"{'; '.join(said)}. The greedy tokens {same}."


def training_sentence(table: pd.DataFrame) -> str:
    """The fastest training of each shape, and how far each loss is from the CPU's."""
    if table.empty or (table.way == ON_CPU).all():
        return "No training was measured."
    own = table[table.way != ON_CPU]
    said = []
    for shape, part in own.groupby("shape", sort=False):
        best = part.loc[part.tokens_per_s.idxmax()]
        many = f"{best.tokens_per_s:,.0f} tokens a second in {best.way}"
        over = f", {best.over_cpu:.0f} times the CPU's" if best.over_cpu == best.over_cpu else ""
        said.append(f"{shape} learns from {many}{over}")
    far = own.assign(far=own.nats_from_cpu.abs()).groupby("way", sort=False).far.max().dropna()
    apart = ", ".join(f"{powered(f'{nats:.2g}')} nats in {way}" for way, nats in far.items())
    if apart:
        most = "the largest difference of a loss from the CPU's is"
        said.append(f"after {own.steps.max():.0f} equal steps {most} {apart}")
    return "; ".join(said) + "."


def same_tokens(table: pd.DataFrame) -> tuple[int, int]:
    """(new tokens that are the oracle's, up to the first that is not; new tokens)."""
    return (int(table.agreed.sum()), int(table.tokens.sum())) if len(table) else (0, 0)


def farthest(table: pd.DataFrame) -> float:
    """How far a loss in FP32 ends from the CPU's at most, in nats; NaN without one beside it."""
    return float(table.nats_from_cpu[table.way == "FP32"].abs().max()) if len(table) else math.nan


def answer(tables: dict, made: dict) -> str:
    """The chapter in a few sentences: of each part that was measured."""
    if not made:
        return ABSENT[0].upper() + ABSENT[1:] + "."
    ways = {"layers": layer_sentence, "decode": decode_sentence, "training": training_sentence}
    told = [say(tables[name]) for name, say in ways.items() if len(tables.get(name, ()))]
    said = " ".join(told) or "nothing was measured."
    return f"On one {made.get('gpu', made['cpu'])}, {said[0].lower()}{said[1:]}"
