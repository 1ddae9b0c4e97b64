"""The same weights, prompt and tokens in the runtimes that people use: who is faster?

A runtime that is not installed, or refuses, is a row with the reason.
"""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from minitransformer.checkpoint import save
from minitransformer.corpus.language import SPECIALS
from minitransformer.corpus.tokenizers import words_tokenizer
from minitransformer.export import to_gguf, to_huggingface, to_onnx
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, quantize

from .limits import LARGEST, fewer, heavy, per_step
from .llama import held
from .native import FORMATS
from .processes import mean, over_processes, process_medians
from .runtimes import GGUF, OURS, runtimes

LLAMA = ModelConfig(norm="rmsnorm", ffn="swiglu", bias=False)  # what every runtime can express
SHAPES = {
    "1 × 128": LLAMA,
    "6 × 384": replace(LLAMA, vocab_size=4096, d_model=384, n_layers=6, n_heads=6),
    "12 × 768 (124M)": replace(LARGEST, tied=True, norm="rmsnorm", ffn="swiglu", bias=False),
}
YARDSTICK = "llama.cpp"  # the one peer of a heavy shape
SPREAD = 0.12  # of the random weights: at smaller ones greedy text repeats a single token
ENGINE = dict(zip((32, 8, 4), FORMATS, strict=True))  # what each width is compared with
LLAMAS = "transformers.models.llama.modeling_llama"
# Other people's libraries, as the names of their rows begin, and what they import.
PEERS = {
    "ONNX Runtime": ("onnxruntime",), YARDSTICK: ("xllamacpp",), "transformers": (LLAMAS,),
    "torchao": (LLAMAS, "torchao.quantization"), "optimum-quanto": (LLAMAS, "optimum.quanto"),
    "bitsandbytes": (LLAMAS, "bitsandbytes.nn"),
}  # fmt: skip
IN_FP32 = "transformers, dynamic cache"  # what optimum-quanto and bitsandbytes change

# Of each bar: its id, the format of llama.cpp, and the place of the shape.
BARS = (
    ("peers-f32", "F32", 0), ("peers-int8", "Q8_0", 0), ("peers-int4", "Q4_0", 0),
    ("peers-large-f32", "F32", 1), ("peers-large-int8", "Q8_0", 1), ("peers-large-int4", "Q4_0", 1),
    ("peers-124m-f32", "F32", 2), ("peers-124m-int8", "Q8_0", 2), ("peers-124m-int4", "Q4_0", 2),
)  # fmt: skip


def write(folder: Path, shape: str, seed: int) -> None:
    """The model of a shape with random weights, in every format that is asked, below `folder`."""
    torch.manual_seed(seed)
    model = Transformer(SHAPES[shape]).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=SPREAD)
    save(model, folder / "model")
    if not heavy(model.cfg):
        to_huggingface(model, folder / "hf")
        to_onnx(model, folder / "onnx")
        for bits in (8, 4):
            small = quantize(model, QuantScheme(bits, "group", 32))
            to_onnx(small, folder / f"onnx-int{bits}", accuracy_level=4)
    # llama.cpp's server wants words, though it is given ids and gives ids
    words = [*SPECIALS, *(f"w{i}" for i in range(model.cfg.vocab_size - len(SPECIALS)))]
    for kind in GGUF:
        to_gguf(model, folder / f"{kind}.gguf", words_tokenizer(words), kind=kind)


def measure(
    folder: Path, shapes: list[str], new: int, repeats: int, seed: int, only=PEERS
) -> dict[str, pd.DataFrame]:
    """Samples of one process: `peers` (shape, name, new tokens, repeat, seconds), `told` (shape,
    name, bits, bytes, mib that were held more once it ran, tokens, reason why there are none, and
    with what llama.cpp was `built`).

    `only` names the `PEERS` to measure, or "all"; ours are always there. Of a heavy shape half of
    the tokens and repeats are, and the `YARDSTICK` alone beside ours."""
    found = [compare(Path(folder), shape, new, repeats, seed, only) for shape in shapes]
    peers, told = (pd.concat([one[name] for one in found]) for name in ("peers", "told"))
    return {"peers": peers, "told": told.assign(built=built())}


def built() -> str:
    """With what llama.cpp was compiled, as it says itself; "" where it is not here."""
    with suppress(Exception):  # whatever a library that is not ours may raise
        said = import_module("xllamacpp").get_system_info()
        return ", ".join(re.findall(r"\b([A-Z]\w+) = 1\b", said))
    return ""


def compare(folder: Path, shape: str, new: int, repeats: int, seed: int, only) -> dict:
    """The samples of one shape, every runtime in turn in each repeat."""
    folder, cfg = folder / shape.replace(" ", ""), SHAPES[shape]
    new, repeats = fewer(cfg, new), fewer(cfg, repeats)
    if not folder.exists():
        write(folder, shape, seed)
    prompt = np.random.default_rng(seed).integers(4, cfg.vocab_size, 16).tolist()
    ways, told = {}, []
    peers = (YARDSTICK,) if heavy(cfg) else PEERS
    asked = [name for name in peers if {"all", name} & {*only}]
    for runtime in runtimes(folder, prompt):
        if not runtime.name.startswith((OURS, "native", *asked)):
            continue
        row = {"runtime": runtime.name, "bits": runtime.bits, "tokens": "", "reason": ""}
        row["bytes"], before = size(folder / runtime.file), held()
        try:
            ways[runtime.name] = run = runtime.start()
            run(2)  # the first call loads what its library loads late
            apart = getattr(run, "grown", int)()  # bytes of another process, if it has one
            row["mib"] = (held() - before + apart) / 2**20
        except Exception as error:  # whatever a library that is not ours may raise
            row["reason"] = why(error)
        told.append(row)
    rows = []
    for repeat, row in product(range(repeats), told):
        if not row["reason"]:
            rows += continued(ways[row["runtime"]], row, new, repeat)
    tables = {"peers": rows, "told": told}
    return {name: pd.DataFrame(table).assign(shape=shape) for name, table in tables.items()}


def continued(run, row: dict, new: int, repeat: int) -> list[dict]:
    """The samples of one repeat of a runtime; its `row` is told the tokens, or why it has none."""
    try:
        run(1)  # untimed: what another runtime left in the processor's caches is gone
        found = {n: run(n) for n in (1, new)}
    except Exception as error:  # see `compare`
        row |= {"tokens": "", "reason": why(error)}
        return []
    row["tokens"] = json.dumps(found[new][0])
    own = {"name": row["runtime"], "repeat": repeat}
    return [own | {"new": n, "seconds": seconds} for n, (_, seconds) in found.items()]


def why(error: Exception) -> str:
    """An error of a library in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def ready(folder: Path, shapes, new: int, repeats: int, seed: int, only=PEERS) -> None:
    """Imports the libraries that `measure` asks, which takes some of them seconds."""
    for name, modules in PEERS.items():
        if "all" in only or name in only:
            for module in modules:
                with suppress(Exception):  # its row says why
                    import_module(module)


measure.ready = ready


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def table(samples: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and runtime: milliseconds to the first token, microseconds for each further
    one with the interval over processes, how many times as slow as the engine of that many bits,
    leading tokens equal to eager's, bytes of its files, MiB of memory that it took, the median of
    the processes, and why there are no figures."""
    rows, mib = [], told.groupby(["shape", "runtime"]).mib.median()
    for shape, part in told[told.process == 0].groupby("shape", sort=False):
        wanted = json.loads(part[part.runtime == OURS].tokens.iloc[0])
        own = samples[samples["shape"] == shape]
        first = process_medians(own[own.new == own.new.min()])
        step = per_step(own.rename(columns={"new": "calls"}))
        for row in part.itertuples():
            found = {"shape": shape, "runtime": row.runtime, "bits": row.bits}
            if not row.reason:
                found |= speeds(first, step, row.runtime, ENGINE[row.bits])
                same = np.cumprod(np.equal(json.loads(row.tokens), wanted)).sum()
                found |= {"equal_tokens": int(same), "of": len(wanted)}
            found |= {"file_mb": row.bytes / 1e6, "memory_mib": mib[shape, row.runtime]}
            rows.append(found | {"why_not": row.reason})
    return pd.DataFrame(rows)


def speeds(first: pd.DataFrame, step: pd.DataFrame, name: str, engine: str) -> dict:
    """First token and further tokens of one runtime over processes, and against the engine."""
    own = over_processes(1e6 * step[name])
    found = {"first_ms": 1e3 * over_processes(first[name])["estimate"]}
    found |= {"us_per_token": own["estimate"], "low": own["low"], "high": own["high"]}
    if engine in step:
        ratio = over_processes(step[name] / step[engine])
        found |= {f"over_engine_{key}": ratio[key] for key in ("estimate", "low", "high", "spread")}
    return found


def against(table: pd.DataFrame, shape: str, runtime: str) -> tuple[float, tuple] | None:
    """How many times as fast as `runtime` the engine is, in the same bits, with its interval over
    processes; None where one of them has no figures."""
    rows = table[(table["shape"] == shape) & (table.runtime == runtime)]
    if rows.empty or pd.isna(rows.iloc[0].get("over_engine_estimate")):
        return None
    row = rows.iloc[0]
    return row.over_engine_estimate, (row.over_engine_low, row.over_engine_high)


def judged(table: pd.DataFrame, shapes: list[str]) -> list[tuple]:
    """Of each bar that could be measured: its id, how many times as fast as llama.cpp the engine
    is, with its interval, and the shape."""
    own = [(id, shapes[place], kind) for id, kind, place in BARS if place < len(shapes)]
    found = [(id, against(table, shape, f"llama.cpp, {kind}"), shape) for id, shape, kind in own]
    return [row for row in found if row[1]]


def built_told(told: pd.DataFrame) -> str:
    """With what llama.cpp was compiled, in a sentence; "" where it did not say."""
    names = told.built.iloc[0]
    return f"The llama.cpp of this run says that it was compiled with {names}. " if names else ""


def absent(table: pd.DataFrame) -> str:
    """What was not measured, in a sentence; "" where all was."""
    names = sorted(set(table[table.why_not != ""].runtime))
    return f"Not measured in this run: {'; '.join(names)}." if names else ""


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a reader wants it: results first, and why there are none last."""
    columns = {
        "shape": "model", "runtime": "runtime",
        "us_per_token": "µs per token", "low": "low", "high": "high",
        "over_engine_estimate": "times the engine's", "over_engine_low": "engine's low",
        "over_engine_high": "engine's high", "over_engine_spread": "spread",
        "first_ms": "first token, ms", "equal_tokens": "leading tokens equal",
        "file_mb": "files, MB", "memory_mib": "memory, MiB", "why_not": "why there are none",
    }  # fmt: skip
    equal = table.equal_tokens.map("{:.0f}".format) + table.of.map(" of {:.0f}".format)
    equal = equal.where(table.of.notna(), "–")
    table = table.assign(memory_mib=table.memory_mib.round(1), equal_tokens=equal)
    return table.reindex(columns=list(columns)).rename(columns=columns)


def summary(table: pd.DataFrame, shape: str) -> str:
    """The fastest of ours and of theirs at one shape, in a sentence or two."""
    own = table[(table["shape"] == shape) & table.us_per_token.notna()].set_index("runtime")
    own = own.us_per_token
    mine = own[own.index.isin([OURS, *FORMATS])]
    theirs = own.drop(mine.index)
    best = mine.idxmin()
    told = f"At {shape} the fastest of ours by its mean is {best}, **{mine[best]:,.0f} µs** a token"
    if theirs.empty:
        return f"{told}; no other runtime was there to be measured."
    other = theirs.idxmin()
    told += f", the fastest of the others {other}, **{theirs[other]:,.0f} µs**"
    asked, ran = ({n.partition(",")[0] for n in each} for each in (table.runtime, own.index))
    lost = ", ".join(sorted(asked - ran))
    return f"{told}; not there to be measured: {lost}." if lost else f"{told}."


def clear(folder: Path) -> None:
    """Deletes what `measure` wrote: models that serve nothing else."""
    shutil.rmtree(folder, ignore_errors=True)


def kernels(samples: pd.DataFrame, shape: str) -> tuple[float, tuple[float, float]] | None:
    """A further token with int8 weights by the quicker of bitsandbytes and quanto over the same
    program's in FP32, over processes with its interval; None where neither was measured."""
    step = per_step(samples[samples["shape"] == shape].rename(columns={"new": "calls"}))
    theirs = [name for name in step if name.startswith(("bitsandbytes", "optimum-quanto"))]
    if not theirs or IN_FP32 not in step:
        return None
    return mean(over_processes(step[theirs].min(axis="columns") / step[IN_FP32]))
