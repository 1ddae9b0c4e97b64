"""What other runtimes said, in tables for readers and in sentences."""

import pandas as pd

from .interop import EAGER, FORMATS, OWN, ROUNDS


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """One row a model and runtime: of each format the leading tokens equal and the worst
    difference; last, why there are none."""
    rows = []
    for (model, runtime), part in table.groupby(["model", "runtime"], sort=False):
        row = {"model": model, "runtime": runtime}
        for one in part.itertuples():
            row[f"{one.format}: equal"] = f"{one.equal} of {one.of}" if one.of > 0 else "–"
            row[f"{one.format}: worst"] = one.worst
        absent = part[part.reason != ""]
        formats = "" if len(absent) in (0, len(part)) else f"{', '.join(absent.format)}: "
        row["why there are none"] = formats + "; ".join(absent.reason.unique())
        rows.append(row)
    return pd.DataFrame(rows)


def sizes(table: pd.DataFrame, model: str = OWN) -> pd.DataFrame:
    """One row a runtime that ran a model: of each format bytes of its file, and tokens a second."""
    own = table[(table.model == model) & (table.of > 0)]
    wide = own.pivot(index="runtime", columns="format", values=["bytes", "tokens_per_second"])
    found = pd.DataFrame({"runtime": own.runtime.unique()}).set_index("runtime")
    for value, unit in {"bytes": "KiB", "tokens_per_second": "tokens/s"}.items():
        for format in FORMATS:
            part = wide.get((value, format), pd.Series(dtype=float)).astype(float)
            found[f"{format}, {unit}"] = part / 1024 if value == "bytes" else part.round()
    return found.reset_index()


def rounding(table: pd.DataFrame) -> pd.Series:
    """Which rows are llama.cpp's int8 and int4, which round activations too."""
    return table.runtime.str.startswith(ROUNDS) & (table.format != "FP32")


def counted(table: pd.DataFrame) -> tuple[int, int]:
    """(equal tokens, tokens) over all rows that ran and compute weights in floats."""
    part = table[(table.of > 0) & ~rounding(table)]
    return int(part.equal.sum()), int(part.of.sum())


def share(table: pd.DataFrame, word: str, format: str | None = None) -> float | None:
    """Percent of the tokens equal in the runtimes whose name has `word`; None where none ran."""
    part = table[table.runtime.str.contains(word, regex=False) & (table.of > 0)]
    part = part if format is None else part[part.format == format]
    return 100 * part.equal.sum() / part.of.sum() if len(part) else None


def worst_of(table: pd.DataFrame, formats: list[str]) -> float:
    """The worst difference of a logit over all runtimes that compute these formats in floats."""
    return float(table[table.format.isin(formats) & ~rounding(table) & (table.of > 0)].worst.max())


def bytes_of(table: pd.DataFrame, kind: str) -> dict[str, int]:
    """Bytes of the trained model's files of one kind ("model" or "onnx") by format."""
    runtime = {"model": EAGER, "onnx": "ONNX Runtime"}[kind]
    own = table[(table.model == OWN) & (table.runtime == runtime)]
    return dict(zip(own.format, own.bytes, strict=True))


def summary(table: pd.DataFrame) -> str:
    """How many of the tokens are those of PyTorch, in a sentence."""
    equal, of = counted(table)
    ran = table[table.of > 0].runtime
    part = f" (of {ROUNDS} in FP32 only)" if ran.str.startswith(ROUNDS).any() else ""
    return (
        f"**{equal:,} of {of:,}** greedy tokens of {ran.nunique()} runtimes, PyTorch with a cache "
        f"among them, are those of PyTorch that recomputes every step{part}."
    )


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The trained model's tokens a second in FP32 and int4, named by runtime and format: `row`."""
    own = table[(table.model == OWN) & table.tokens_per_second.notna() & (table.format != "int8")]
    return own.assign(row=own.runtime + ", " + own.format)


def parted(table: pd.DataFrame) -> str:
    """What rounding activations too makes of llama.cpp's text, in a sentence; "" without it."""
    rows = table[(table.of > 0) & rounding(table)]
    if rows.empty:
        return ""
    # the step at which a text parts is compared too; half of the last digit more is rounded up
    steps, most = (rows.equal + 1).clip(upper=rows.of).sum(), rows.kl.max() + 0.5e-4
    return (
        "llama.cpp rounds activations too beside int8 and int4 weights, so that its text may part: "
        f"**{rows.equal.sum()} of {rows.of.sum()}** tokens are equal, and over the {steps} steps "
        "with equal text the Kullback-Leibler divergence from PyTorch's on the same integers is at "
        f"most {most:.4f} nats; the table has the worst difference of a single number."
    )


def adapters(table: pd.DataFrame) -> str:
    """On which adapters WebGPU ran, in software or not, in words; "" where it did not."""
    found = ", ".join(sorted({*table.adapter} - {""}))
    return f"{found}, in software" if found and table.software.any() else found
