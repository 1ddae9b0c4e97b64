"""How fast, how small and how good is a model of the user's, in every format and cache, and what
follows for someone who wants to run it?"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.checkpoint import save
from minitransformer.decode import generate
from minitransformer.export import export
from minitransformer.native.checks import check_model
from minitransformer.quant import computed_bytes, matrices, quantize

from . import interop, native, own
from .cache_quality import added_perplexity
from .calibration import windows
from .limits import read_bytes
from .peers import size
from .processes import over_processes, process_medians
from .scores import Scores

FORMATS = {name.removeprefix("native "): scheme for name, scheme in native.FORMATS.items()}
CACHES = ("static", "int8", "int4", "int2")
UNCACHED = 2  # tokens: each costs as much as the whole text before it
ENGINE, EAGER = "C engine", "PyTorch"
IN = {ENGINE: "the C engine", EAGER: EAGER}  # as a sentence has them
FREE = 1.0  # % of perplexity: what costs less, the whole interval of it, counts as free
WATCHED = 2e12  # operations that GPTQ may take: a forward of its text for each matrix, minutes
METHODS = {"int4 rounded": "rtn", "int4 clipped": "mse", "int4 GPTQ": "gptq"}


def parts(cfg) -> pd.DataFrame:
    """Parameters by part, and their share."""
    found = bench.parameters(cfg)
    table = pd.DataFrame({"part": list(found), "parameters": list(found.values())})
    return table.assign(share_percent=100 * table.parameters / table.parameters.sum())


def bytes_of(cfg) -> pd.DataFrame:
    """MiB of the weights by format, what one token must read of them, and the tokens a second that
    this machine's memory allows one thread."""
    rows = []
    for name, scheme in FORMATS.items():
        read = read_bytes(cfg, scheme)
        whole = computed_bytes(cfg, scheme) / 2**20
        rows.append((name, whole, read / 2**20, 1 / bench.read_seconds(read, 5)))
    return pd.DataFrame(rows, columns=["format", "weights_mib", "read_mib", "limit_per_second"])


def cache_bytes(cfg) -> pd.DataFrame:
    """KiB a token of each kind of cache, and MiB of the whole context."""
    n = cfg.context
    held = {kind: bench.kv_bytes(cfg, n, kind=kind) for kind in CACHES}
    rows = [(kind, size / n / 1024, size / 2**20) for kind, size in held.items()]
    return pd.DataFrame(rows, columns=["cache", "KiB a token", "whole context, MiB"])


def measure(folder: Path, prompt: np.ndarray, new: int, repeats: int) -> dict:
    """Samples of one process, on one thread: `own_steps`, loops of `new` tokens after a prompt, and
    without a cache of `UNCACHED` where half of the others' are written."""
    model = own.read(folder)
    start = torch.from_numpy(prompt)[None]
    half = start.shape[1] + (new - UNCACHED) // 2
    middle = start.repeat(1, -(-half // start.shape[1]))[:, :half]
    ways = {
        (EAGER, "FP32", "none"): partial(generate, model, middle, UNCACHED, cache=None),
        (EAGER, "FP32", "static"): partial(generate, model, start, new, cache="static"),
    }
    if not absent(model):
        for name, engine in native.packed(model).items():
            for cache in CACHES[:2]:
                loop = partial(generate, engine, start, new, cache=cache, backend="native")
                ways[(ENGINE, name.removeprefix("native "), cache)] = loop
    named = {" | ".join(way): loop for way, loop in ways.items()}
    return {"own_steps": bench.interleaved(named, repeats, warmup=1)}


def absent(model) -> str:
    """Why the engine cannot run this model here, "" where it can."""
    why = native.missing()
    try:
        check_model(model)
    except ValueError as error:
        why = why or str(error)
    return why


def speeds(samples: pd.DataFrame, new: int, limits: pd.DataFrame) -> pd.DataFrame:
    """Tokens a second of every way with its interval over processes, and the share of what reading
    the weights allows, in %."""
    each, bound, rows = process_medians(samples), limits.set_index("format").limit_per_second, []
    for name in each.columns:
        runtime, form, cache = name.split(" | ")
        found = over_processes((UNCACHED if cache == "none" else new) / each[name])
        row = {"runtime": runtime, "format": form, "cache": cache}
        row |= {"per_second": found["estimate"], "low": found["low"], "high": found["high"]}
        rows.append(row | {"of_limit_percent": 100 * found["estimate"] / bound[form]})
    return pd.DataFrame(rows).sort_values("per_second", ignore_index=True)


def formats(model, texts: dict, window: int, done=None) -> pd.DataFrame:
    """Perplexity on the text in each format and method as the engine computes it, its activations
    rounded too, and what it adds to FP32's, paired by token."""
    scores, fitting = Scores(texts["test"], window, done), None
    scores.add("FP32", model)
    scores.add("int8", quantize(model, FORMATS["int8"]))
    for name, how in METHODS.items():
        reads = len(matrices(model.cfg)) * bench.flops(model.cfg, len(texts["fit"]))
        if how == "gptq" and reads > WATCHED:  # its text through the model once for each matrix
            continue
        fitting = windows(texts["fit"], len(texts["fit"]), window) if how == "gptq" else None
        scores.add(name, quantize(model, FORMATS["int4"], how, fitting))
    return scores.table(list(scores.kept), over="FP32")


def caches(model, ids, window: int) -> pd.DataFrame:
    """What each quantized cache adds to the perplexity of a static one."""
    return added_perplexity({"FP32": model}, ids, window, CACHES[1:]).drop(columns="model")


def free(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose whole interval lies below `FREE`."""
    return table[table.high <= FREE]


def chosen(formats: pd.DataFrame, caches: pd.DataFrame, speeds: pd.DataFrame) -> dict:
    """The advice: the fastest measured way whose format and cache are both free; of a format, the
    method that costs least."""
    kinds = {"static", *free(caches).cache}
    cost = pd.concat([formats[formats.format == "FP32"], free(formats[formats.format != "FP32"])])
    cost = cost.assign(kind=cost.format.str.split(" ").str[0]).sort_values("added_percent")
    best = cost.drop_duplicates("kind").set_index("kind")
    ways = speeds[speeds.format.isin(best.index) & speeds.cache.isin(kinds)]
    way = ways.loc[ways.per_second.idxmax()]
    return {**way, "method": best.format[way.format], "added": best.loc[way.format].to_dict()}


def shipped(model, method: str, texts: dict, window: int, folder: Path, tokenizer) -> Path:
    """The advised file: the model in its format, with its tokenizer, as `load` reads it."""
    how = METHODS.get(method, "rtn")
    scheme = FORMATS[method.split(" ")[0]]
    fitting = windows(texts["fit"], len(texts["fit"]), window) if how == "gptq" else None
    small = model if scheme is None else quantize(model, scheme, how, fitting)
    fits = tokenizer.get_vocab_size() == model.cfg.vocab_size
    return save(small, folder, tokenizer if fits else None)


def files(model, tokenizer) -> pd.DataFrame:
    """MB of what `make export` writes of the model, or why a runtime cannot have it."""
    rows = []
    ways = [(name, "float32", {}) for name in ("hf", "onnx")]
    ways += [("onnx", name, {}) for name in ("int8", "int4")]
    ways += [("gguf", kind, {"kind": kind}) for kind in ("f16", "q8_0", "q4_0")]
    for name, kind, options in ways:
        with TemporaryDirectory() as folder:
            label = f"{name} {kind}"
            scheme = interop.FORMATS.get(kind) if name == "onnx" else None
            small = model if scheme is None else quantize(model, scheme)
            try:
                path = export(small, folder, name, tokenizer, **options)
            except (ImportError, ValueError) as error:
                rows.append((label, np.nan, str(error)))
            else:
                rows.append((label, size(path) / 1e6, "written"))
    return pd.DataFrame(rows, columns=["file", "MB", "what"])


def advice(choice: dict, cfg, shipped: Path) -> pd.DataFrame:
    """What `chosen` says, a row a question, in words."""
    added = choice["added"]
    held = bench.kv_bytes(cfg, cfg.context, kind=choice["cache"]) / 2**20
    weights = computed_bytes(cfg, FORMATS[choice["format"]]) / 2**20
    between = choice["low"], choice["high"]
    whole = (shipped / "tokenizer.json").is_file()  # its vocabulary is the model's, not padded
    beside = "" if whole else ", beside the tokenizer.json of the model's folder"
    told = {
        "format": f"{choice['method']}, in {IN[choice['runtime']]}",
        "cache": choice["cache"],
        "speed": f"{choice['per_second']:,.1f} tokens a second"
        + ("" if np.isnan(between).any() else f" [{between[0]:,.1f}, {between[1]:,.1f}]"),
        "of what reading the weights allows": f"{choice['of_limit_percent']:.0f} %",
        "perplexity added": "nothing"
        if choice["format"] == "FP32"
        else f"{added['added_percent']:+.2f} % [{added['low']:+.2f}, {added['high']:+.2f}]",
        "memory of the weights": f"{weights:,.1f} MiB",
        "memory of the cache, whole context": f"{held:,.1f} MiB at {cfg.context:,} tokens",
        "file to ship": f"{shipped.name}/, {size(shipped) / 1e6:,.1f} MB{beside}",
    }
    told = {question: answer.replace("-", "\u2212") for question, answer in told.items()}
    return pd.DataFrame(list(told.items()), columns=["question", "answer"])
