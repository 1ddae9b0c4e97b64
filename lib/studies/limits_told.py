"""What `limits` found, as its appendix shows it: tables, cases of its bars, sentences."""

import numpy as np
import pandas as pd

from minitransformer.native.threads import COLUMNS, ROWS

from .limits import READ, REST, SHAPES, WHOLE
from .native import FORMATS
from .words import minus, with_interval

WORDS = {
    "shape": "model", "us": "µs a step", "us_per_token": "µs a token", "ms": "ms",
    "least_us": "mark, µs", "mark": "mark is", "over_least": "times the mark",
    "reached_percent": "of that speed, %", "eager_ms": "eager, ms", "native_ms": "engine, ms",
    "eager_peak": "eager, % of the peak", "native_peak": "engine, % of the peak",
    "over_fp32": "times as fast as FP32", "over_eager": "times as fast as eager",
    "over_alone": "times as fast as one thread", "over_one": "times one row",
    "over_static": "times static", "over_first": "times its shortest",
    "gain": "times as fast", "outside_us": "µs beyond T(m), a forward",
    "promised": "times promised by T(m)", "over_promised": "of what is promised",
}  # fmt: skip
READING = {"least_us": "reading, µs", "over_least": "times reading"}  # where no mark is a product
BEHIND = {"_low": " low", "_high": " high", "_spread": ", spread"}  # what follows a ratio
WORTH = {
    "speedup": "cached over recomputed, both in the engine, ×",
    "roofline": "the same by the roofline, ×",
    "reached_percent": "the roofline's speed that the cached loop reaches, %",
    "over_naive": "cached in the engine over recomputed in eager PyTorch, ×",
}
DEALT = 7  # of a block: six products and the look at the cache
# Of each bar on steps: its id, whether it is of two threads, how its formats begin, and its column.
FIRST = ("engine-floor", False, "native FP32", "over_least")  # of the first shape
STEPS = (
    ("engine-large-floor", False, "native FP32", "over_least"),
    ("engine-large-int8", False, "native int8", "over_fp32"),
    ("engine-large-int4", False, "native int4", "over_fp32"),
    ("engine-few-bits", False, "native int", "over_least"),
    ("engine-two-floor", True, "native FP32", "over_least"),
    ("engine-two-int8", True, "native int8", "over_fp32"),
    ("engine-two-int4", True, "native int4", "over_fp32"),
    ("engine-two-few-bits", True, "native int", "over_least"),
    ("engine-threads", True, "native", "over_alone"),
)
# Of each bar on kinds of cache: its id, the kind, the place of its length (None: at every one), and
# its column.
KINDS = (
    ("engine-paged", "paged", None, "over_static"),
    ("engine-int8-cache-short", "int8", 0, "over_static"),
    ("engine-int8-cache", "int8", -1, "over_static"),
    ("engine-window", "window", -1, "over_first"),
)


def worded(table: pd.DataFrame, more: dict | None = None) -> pd.DataFrame:
    """A table's columns in words, each ratio with its interval and its spread over processes;
    `more` are other words for some."""
    names = WORDS | (more or {})
    for name, word in names.copy().items():
        names |= {name + end: word + behind for end, behind in BEHIND.items()}
    return table.rename(columns=names)


def cases(table: pd.DataFrame, value: str, case: str) -> pd.DataFrame:
    """The columns that a bar over several cases reads: `case`, `value`, low and high."""
    bounds = {f"{value}_low": "low", f"{value}_high": "high"}
    return table[[case, value, *bounds]].rename(columns=bounds)


def judged(table: pd.DataFrame, name: str, value: str, shapes: list[str]) -> pd.DataFrame:
    """What a bar over several shapes reads of a table of steps, of formats whose names begin so."""
    part = table[table.format.str.startswith(name) & table["shape"].isin(shapes)]
    return cases(part.assign(case=part["shape"] + ", " + part.format), value, "case")


def step_cases(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By the id of each bar on steps what it reads of the tables of one thread and of two: the
    first is about the first shape, the others about the larger ones, where there are any."""
    first, *larger = one["shape"].unique()
    asked = [(FIRST, [first]), *((bar, larger) for bar in STEPS if larger)]
    return {
        id: judged(two if threads else one, name, value, shapes)
        for (id, threads, name, value), shapes in asked
    }


def kind_cases(kinds: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By the id of each bar on kinds of cache the rows that it reads."""
    lengths, found = kinds.tokens.unique(), {}
    for id, kind, place, value in KINDS:
        own = kinds[kinds.cache == kind]
        own = own if place is None else own[own.tokens == lengths[place]]
        own = own.assign(case=own.tokens.map("{:,} tokens".format))
        found[id] = cases(own, value, "case")
    return found


def prompt_cases(prompts: pd.DataFrame) -> pd.DataFrame:
    """What the bar on prompts reads: every shape and length."""
    case = prompts["shape"] + ", " + prompts.tokens.astype(str) + " tokens"
    return cases(prompts.assign(case=case), "over_eager", "case")


def eight_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `row_table` for eight rows in FP32."""
    return rows[(rows.rows == 8) & (rows.format == "native FP32")]


def row_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """What the bar on eight rows reads: every shape."""
    return cases(eight_rows(rows), "over_least", "shape")


def not_run(shapes: list[str]) -> str:
    """Which shapes are not among those measured, in words."""
    left = [name for name in SHAPES if name not in shapes]
    return f"Not run by this profile: {'; '.join(left)}." if left else "All of them are run."


def dealt(one: pd.DataFrame, two: pd.DataFrame) -> str:
    """From the tables of steps on one thread and on two, in a sentence: how much faster FP32's
    weights are read by two, and what few bits take beyond half of one thread's time, for each of
    the `DEALT` products and looks of a block, and the head, in which work is dealt out."""
    whole, beyond = one.format == "native FP32", []
    faster = (one.least_us / two.least_us)[whole]
    for shape, few in one.assign(two=two.us)[~whole].groupby("shape", sort=False):
        us = (few.two - few.us / 2) / (DEALT * SHAPES[shape].n_layers + 1)
        beyond.append(f"{us.min():.1f} to {us.max():.1f} µs ({shape})")
    return (
        f"Two threads read what FP32 reads {faster.min():.1f} ({one['shape'][faster.idxmin()]}) to "
        f"{faster.max():.1f} times as fast as one. Beyond half of one's time few bits take, for "
        f"each product or look at the cache dealt out, {minus(', '.join(beyond))}. {too_high(two)}"
    )


def pays(threads: pd.DataFrame) -> str:
    """From which size of one product on two threads were a tenth faster, in the median process, of
    those that `pays_above` tries, the largest first; only, or not even, at this; in a sentence."""
    KiB, most = threads.bytes.quantile(interpolation="higher") / 1024, 4 * ROWS * COLUMNS // 1024
    where = "only at" if KiB == most else f"from {KiB:,.0f} KiB to"
    where = "at no size up to" if np.isinf(KiB) else where
    told = "One product in FP32, alone, takes two threads at least a tenth less time than one"
    return f"{told} thread {where} {most:,} KiB, the most tried."


def rows_for_sentence(rows: pd.DataFrame, steps: pd.DataFrame) -> dict:
    """Of eight rows in FP32: `times` the mark by shape, in words, the microseconds that `all` of it
    takes at the `first` shape, those that a row takes `beyond` a step inside the engine's loop,
    and what is `left` of the times without these."""
    eight = eight_rows(rows)
    pairs = zip(eight.over_least, eight["shape"], strict=True)
    times, first = [f"{x:.2f} ({shape})" for x, shape in pairs], eight["shape"].iloc[0]
    one, step = (t[(t["shape"] == first) & (t.format == "native FP32")] for t in (rows, steps))
    beyond, whole = 1e3 * one.ms[one.rows == 1].iloc[0] - step.us.iloc[0], 1e3 * eight.ms.iloc[0]
    left = eight.over_least.iloc[0] * (1 - beyond / whole)
    return dict(times=", ".join(times), first=first, all=whole, beyond=beyond, left=left)


def parts_told(parts: pd.DataFrame) -> str:
    """Which part of a step in FP32 surely takes the most beyond reading, and it in few bits."""
    fp32 = parts[(parts.format == "native FP32") & (parts.part != WHOLE)]
    most = fp32.loc[fp32.over_least_low.fillna(0).idxmax()]
    own = parts.set_index(["part", "format"])
    rest = own.loc[REST].loc[[*FORMATS]]
    rest = ", ".join(map(with_interval, rest.us, rest.us_low, rest.us_high))
    ends = with_interval(most.over_least, most.over_least_low, most.over_least_high)
    told = f"Furthest above reading alone in FP32: {most.part}, {ends} times"
    if not most.over_least_low > 1:  # of one process there is no interval
        told = "In FP32 no part surely takes longer than reading its weights"
    return (
        f"{told}. Attention, norms and the loop take {rest} µs in FP32, int8 and int4; in int4 a "
        f"whole step takes {own.us[WHOLE, [*FORMATS][-1]]:.1f}."
    )


def too_high(steps: pd.DataFrame) -> str:
    """Where a step surely takes less than its mark although that is reading, in a sentence."""
    own = steps[(steps.over_least_high < 1) & (steps.mark == READ)]
    said = [f"in {name.removeprefix('native ')} at {', '.join(part['shape'])}"
            for name, part in own.groupby("format", sort=False)]  # fmt: skip
    told = f"Reading is too high a mark, as a step surely takes less, {'; '.join(said)}."
    return told if said else "No step surely takes less than a mark that is reading."


def worth_table(found: dict[str, dict]) -> pd.DataFrame:
    """What `worth` found, a row a quantity."""
    rows = [{"quantity": WORTH[name], **over} for name, over in found.items()]
    return pd.DataFrame(rows).rename(columns={"estimate": "value"}).drop(columns="processes")


def summary(steps: pd.DataFrame) -> str:
    """The engine's distance from its mark at the first and the last shape, in a sentence."""
    own, shapes = steps.set_index(["shape", "format"]), steps["shape"].unique()
    parts = []
    for shape in dict.fromkeys((shapes[0], shapes[-1])):
        row, four = own.loc[(shape, "native FP32")], own.loc[(shape, "native int4")]
        ends = (row.over_least, row.over_least_low, row.over_least_high)
        parts.append(
            f"At {shape} a step takes **{row.us:,.0f} µs** in FP32, {with_interval(*ends)} times "
            f"reading its weights or multiplying{', a mark too high there' * bool(ends[2] < 1)}, "
            f"and {four.us:,.0f} µs in int4"
        )
    return "; ".join(parts).replace("; At", "; at") + "."
