"""The quantization chapter's own tables: several models together, and all formats in one figure."""

import pandas as pd
import torch

from minitransformer.checkpoint import load
from minitransformer.quant import accelerate

from .calibration import TITLES, chosen
from .native import STORED
from .scores import Scores

# The formats of the Pareto figure: of the rest each has a neighbour here.
DRAWN = (
    "fp32",
    "int8 channel",
    "int4 tensor",
    "int4 g128",
    "int4 g32",
    "int4 g32 asym",
    "nf4 g64",
    "int3 g32 asym",
    "int2 g32 asym",
)


def cases(scores: dict[str, Scores], name: str) -> pd.DataFrame:
    """What a format adds on each model: model, added_percent, low, high."""
    return pd.DataFrame([{"model": model, **own.added(name)} for model, own in scores.items()])


def recovery_cases(table: pd.DataFrame) -> pd.DataFrame:
    """The recovered share of each model and width: model, bits, recovered_percent, low, high. Where
    nothing was surely lost it is 0 without an interval, which decides nothing."""
    own = table[["model", "bits", "recovered_percent", "recovered_low", "recovered_high"]]
    own = own.rename(columns={"recovered_low": "low", "recovered_high": "high"})
    return own.fillna({"recovered_percent": 0.0})


def recovered_at(table: pd.DataFrame, bits: int) -> tuple:
    """The recovered share at a width, in per cent, and its interval; (None, None) where it was not
    tried, or nothing was surely lost."""
    own = table[(table.bits == bits) & table.recovered_percent.notna()]
    if own.empty:
        return None, None
    return own.recovered_percent.iloc[0], (own.recovered_low.iloc[0], own.recovered_high.iloc[0])


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of several models as one."""
    return pd.concat(tables.values(), ignore_index=True)


def teacher_cases(taught: pd.DataFrame) -> pd.DataFrame:
    """What the control teaches in place of the text: format (bits), added_percent, low, high."""
    columns = {f"teacher_{name}": name for name in ("added_percent", "low", "high")}
    own = taught.replace(", from the text", "", regex=True).dropna(subset="teacher_low")
    return own[["format", *columns]].rename(columns=columns)


def front(sizes, costs, methods, qat, speed, model: str = "1 block") -> pd.DataFrame:
    """Every format and method of one model: KiB of the file against perplexity added; `label`,
    which gives the time of a decode step in the C engine where there is one; and `compared`,
    false for what is compared with a control of its own."""
    kib = sizes.set_index("format").file_bytes / 1024
    plain = costs[costs.format.isin(DRAWN)].assign(file_kib=lambda t: t.format.map(kib))
    best = chosen(methods[methods.model == model])
    best = best.assign(
        file_kib=best.bits.map(lambda b: kib[f"int{b} g32 asym"]),
        format=[f"int{row.bits} {TITLES[row.method]}" for row in best.itertuples()],
    )
    own = qat[qat.model == model]
    learned = own.assign(
        file_kib=own.bits.map(lambda b: kib[f"int{b} g32 asym"]),
        format=[f"int{bits} QAT" for bits in own.bits],
    )
    columns = ["format", "file_kib", "added_percent", "low", "high"]
    table = pd.concat([each[columns] for each in (plain, best, learned)], ignore_index=True)
    table["compared"] = ~table.format.isin(learned.format)
    native = speed[speed.kernel == "native"].set_index("how").step_us.rename(STORED)
    table["step_us"] = table.format.map(native)
    timed = table.step_us.map(" · {:.0f} µs".format).where(table.step_us.notna(), "")
    return table.assign(label=table.format + timed)


def against(row) -> str:
    """What a row of `front` is compared with, in words, where it is not FP32."""
    return "" if row.compared else " over its own control"


def answer(front: pd.DataFrame, sizes: pd.DataFrame, scores: Scores) -> dict:
    """Of the smallest file of `front` that surely costs at most 1 %: its `name`, how many `times`
    smaller than FP32's it is, what it costs (`cost`) and over what (`than`); and what int8 costs
    (`eight`)."""
    free = front[front.high <= 1].sort_values("file_kib").iloc[0]
    return {
        "name": free.format,
        "times": sizes.file_bytes[0] / 1024 / free.file_kib,
        "cost": free.added_percent,
        "than": against(free),
        "eight": scores.added("int8 channel")["added_percent"],
    }


def tuned_times(bench: pd.DataFrame) -> dict[str, str]:
    """{times}: how many times smaller the format is in which int4 is fine-tuned, by
    bench_quant.csv; {} where it was not measured."""
    own = bench[bench["format"] == "int4 g32 asym"] if "format" in bench else bench
    return {"times": f"{own.times_smaller.iloc[0]:.2f}×"} if len(own) else {}


def highlighted(front: pd.DataFrame, bits: int) -> dict[str, str]:
    """The colour of the format of so many bits in the figure of `front`."""
    format = {32: "fp32", 8: "int8 channel", 4: "int4 g32"}[bits]
    return dict.fromkeys(front.label[front.format == format], "plum")


def bytes_and_time(speed: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Each way to run a format: KiB of its file against microseconds a step. The interval is that
    of its time against FP32 in the same engine."""
    kib = sizes.set_index("format").file_bytes / 1024
    base = speed.step_us / speed.time_ratio  # FP32 in the same engine
    own = speed.assign(file_kib=speed.format.map(kib), low=base * speed.low, high=base * speed.high)
    return own[["how", "file_kib", "step_us", "low", "high"]]


def exact(models: dict, folder, ids) -> pd.DataFrame:
    """Largest difference of logits between a packed model, its dequantized twin and the one read
    back from `folder`."""
    rows = []
    for name, target in (("int8 channel", "model-int8"), ("int4 g32", "model-int4")):
        with torch.no_grad():
            packed = models[name](ids)
            once, back = accelerate(models[name], "dequantized"), load(folder / target)[0]
            for what, other in (("dequantized", once), ("read back", back)):
                gap = (packed - other(ids)).abs().max().item()
                rows.append((f"{name}, packed against {what}", gap))
    return pd.DataFrame(rows, columns=["what", "difference"])


STATEMENT = (
    "The logits of the packed model, of its dequantized twin and of the model read back from disk "
    "are equal on one window of the test split, bit for bit."
)


def proof(gaps: pd.DataFrame) -> tuple:
    """What the chapter's certificate shows of `exact`: its statement, its lines, and whether it
    holds."""
    lines = [(row.what, row.difference, "= 0") for row in gaps.itertuples()]
    return STATEMENT, lines, gaps.difference.max() == 0


def bench(costs, sizes, speed, window: int, seed: int) -> pd.DataFrame:
    """bench_quant.csv: a row a format and way to run it, units in the names."""
    steps = speed.rename(columns={end: f"time_{end}" for end in ("low", "high", "spread")})
    steps = steps.drop(columns=["resident_bytes"])
    table = costs.drop(columns="times_smaller").merge(sizes, on="format")
    return table.merge(steps, on="format", how="left").assign(window=window, seed=seed)


def smallest_free(scores: Scores, sizes: pd.DataFrame, bound: float = 1.0) -> pd.Series:
    """The row of the smallest file whose added perplexity surely stays below `bound` per cent."""
    highs = sizes.format.map(lambda name: scores.added(name)["high"])
    return sizes[(highs < bound) | (sizes.format == "fp32")].sort_values("file_bytes").iloc[0]


def sizes_in(folder) -> pd.DataFrame:
    """The formats of a bench_quant.csv with the bytes of their files, a row each."""
    return pd.read_csv(folder / "bench_quant.csv").drop_duplicates("format")
