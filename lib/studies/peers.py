"""The same weights, prompt and tokens in the runtimes that people use, on one thread.

Each runtime is loaded as its own documents say. One that is not installed, or refuses, is a row
with the reason. What is timed is what a user waits for: the whole call for Python libraries, and
for llama.cpp the time that its server states, without HTTP.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.checkpoint import load, save
from minitransformer.corpus.language import SPECIALS
from minitransformer.corpus.tokenizers import words_tokenizer
from minitransformer.decode import generate
from minitransformer.export import to_gguf, to_huggingface, to_onnx
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, quantize

from .limits import per_step, read_bytes
from .native import FORMATS, missing, packed
from .processes import over_processes, process_medians

LLAMA = ModelConfig(norm="rmsnorm", ffn="swiglu", bias=False)  # what every runtime can express
SHAPES = {
    "1 × 128": LLAMA,
    "6 × 384": replace(LLAMA, vocab_size=4096, d_model=384, n_layers=6, n_heads=6),
}
SPREAD = 0.12  # of the random weights: at smaller ones greedy text repeats a single token
GGUF = ("f32", "q8_0", "q4_0")
LIKELIEST = 10  # tokens whose log-probabilities llama.cpp tells
ENGINE = dict(zip((32, 8, 4), FORMATS, strict=True))  # what each width is compared with
# Other people's libraries, as the names of their rows begin.
PEERS = (
    "ONNX Runtime", "llama.cpp", "transformers", "torchao", "optimum-quanto", "bitsandbytes"
)  # fmt: skip
OURS = "this library, eager"


@dataclass(frozen=True)
class Runtime:
    """A way to continue a prompt: `run(new)` gives the tokens and the seconds that they took."""

    name: str
    bits: int
    file: str
    start: Callable[[], Callable[[int], tuple[list[int], float]]]


def write(folder: Path, shape: str, seed: int) -> None:
    """The model of a shape with random weights, in every format, below `folder`."""
    torch.manual_seed(seed)
    model = Transformer(SHAPES[shape]).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=SPREAD)
    save(model, folder / "model")
    to_huggingface(model, folder / "hf")
    to_onnx(model, folder / "onnx")
    for bits in (8, 4):
        small = quantize(model, QuantScheme(bits, "group", 32))
        to_onnx(small, folder / f"onnx-int{bits}", accuracy_level=4)
    # llama.cpp's server wants words, though it is given ids and gives ids
    words = [*SPECIALS, *(f"w{i}" for i in range(model.cfg.vocab_size - len(SPECIALS)))]
    for kind in GGUF:
        to_gguf(model, folder / f"{kind}.gguf", words_tokenizer(words), kind=kind)


def runtimes(folder: Path, prompt: list[int]) -> Iterator[Runtime]:
    """Every runtime of the comparison, over the files of `write`."""
    ids = torch.tensor([prompt])

    def eager():
        return called(partial(generate, load(folder / "model")[0], ids))

    yield Runtime(OURS, 32, "model", eager)
    for name, bits in zip(FORMATS, (32, 8, 4), strict=True):
        yield Runtime(name, bits, "model", partial(engine, folder, name, ids))
    for cache in ("dynamic", "static"):
        way = partial(transformers, folder, ids, cache)
        yield Runtime(f"transformers, {cache} cache", 32, "hf", way)
    yield Runtime("torchao, int8 weights", 8, "hf", partial(torchao, folder, ids))
    yield Runtime("optimum-quanto, int8 weights", 8, "hf", partial(quanto, folder, ids))
    yield Runtime("bitsandbytes, int8", 8, "hf", partial(bitsandbytes, folder, ids))
    for name, bits in (("onnx", 32), ("onnx-int8", 8), ("onnx-int4", 4)):
        label = "ONNX Runtime" + ("" if bits == 32 else f", int{bits}")
        yield Runtime(label, bits, name, partial(onnxruntime, folder / name, prompt))
    for kind, bits in zip(GGUF, (32, 8, 4), strict=True):
        path = folder / f"{kind}.gguf"
        yield Runtime(f"llama.cpp, {kind.upper()}", bits, path.name, partial(llama, path, prompt))


def measure(
    folder: Path, shapes: list[str], new: int, repeats: int, seed: int, only=PEERS
) -> dict[str, pd.DataFrame]:
    """Samples of one process: `peers` (shape, name, new tokens, repeat, seconds), `told` (shape,
    name, bits, bytes, tokens, reason why there are none) and `read` (shape, bits, and the least
    seconds in which the engine's weights are read once).

    `only` names the `PEERS` to measure, or "all"; ours are always there."""
    found = [compare(Path(folder), shape, new, repeats, seed, only) for shape in shapes]
    return {name: pd.concat([one[name] for one in found]) for name in found[0]}


def compare(folder: Path, shape: str, new: int, repeats: int, seed: int, only) -> dict:
    """The samples of one shape, every runtime in turn in each repeat."""
    folder = folder / shape.replace(" ", "")
    if not folder.exists():
        write(folder, shape, seed)
    prompt = np.random.default_rng(seed).integers(4, SHAPES[shape].vocab_size, 16).tolist()
    ways, told = {}, []
    for runtime in runtimes(folder, prompt):
        if "all" not in only and not runtime.name.startswith((OURS, "native", *only)):
            continue
        row = {"runtime": runtime.name, "bits": runtime.bits, "tokens": "", "reason": ""}
        row["bytes"] = size(folder / runtime.file)
        try:
            run = runtime.start()
            row["tokens"] = json.dumps(run(new)[0])
            ways[runtime.name] = run
        except Exception as error:  # whatever a library that is not ours may raise
            row["reason"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        told.append(row)
    rows = []
    for repeat, (name, run) in product(range(repeats), ways.items()):
        run(1)  # untimed: what another runtime left in the processor's caches is gone
        rows += [{"name": name, "new": n, "repeat": repeat, "seconds": run(n)[1]} for n in (1, new)]
    read = [
        {"bits": bits, "seconds": bench.read_seconds(read_bytes(SHAPES[shape], FORMATS[name]))}
        for bits, name in ENGINE.items()
    ]
    tables = {"peers": rows, "told": told, "read": read}
    return {name: pd.DataFrame(table).assign(shape=shape) for name, table in tables.items()}


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def table(samples: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and runtime: milliseconds to the first token, microseconds for each further
    one with the interval over processes, how many times as slow as the engine of that many bits,
    leading tokens equal to eager's, bytes of its files, and why there are no figures."""
    rows = []
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
            rows.append(found | {"file_mb": row.bytes / 1e6, "why_not": row.reason})
    return pd.DataFrame(rows)


def speeds(first: pd.DataFrame, step: pd.DataFrame, name: str, engine: str) -> dict:
    """First token and further tokens of one runtime over processes, and against the engine."""
    own = over_processes(1e6 * step[name])
    found = {
        "first_ms": 1e3 * over_processes(first[name])["estimate"],
        "us_per_token": own["estimate"],
        "low": own["low"],
        "high": own["high"],
    }
    if engine in step:
        ratio = over_processes(step[name] / step[engine])
        found |= {f"over_engine_{key}": ratio[key] for key in ("estimate", "low", "high")}
    return found


# --- the runtimes


def called(generate_more) -> Callable:
    """`generate_more(new)` -> ids with the prompt, as a run."""

    def run(new):
        start = time.perf_counter()
        ids = generate_more(new)
        return ids[0, -new:].tolist(), time.perf_counter() - start

    return run


def engine(folder, name, ids):
    """Our engine in one of its formats."""
    if reason := missing():
        raise RuntimeError(reason)
    return called(partial(generate, packed(load(folder / "model")[0])[name], ids, backend="native"))


def transformers(folder, ids, cache, change=None):
    """`generate` of Hugging Face transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "hf")
    if change is not None:
        change(model)
    how = {"cache_implementation": "static"} if cache == "static" else {}

    def more(new):
        return model.generate(ids, max_new_tokens=new, do_sample=False, **how)

    return called(more)


def torchao(folder, ids):
    """Hugging Face transformers on torchao's int8 weights."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    return transformers(folder, ids, "dynamic", lambda m: quantize_(m, Int8WeightOnlyConfig()))


def quanto(folder, ids):
    """Hugging Face transformers on optimum-quanto's int8 weights."""
    from optimum import quanto

    def change(model):
        quanto.quantize(model, weights=quanto.qint8)
        quanto.freeze(model)

    return transformers(folder, ids, "dynamic", change)


def bitsandbytes(folder, ids):
    """Hugging Face transformers on bitsandbytes' LLM.int8 layers."""
    from bitsandbytes.nn import Linear8bitLt

    def change(model):
        for module in list(model.modules()):
            for name, old in list(module.named_children()):
                if isinstance(old, torch.nn.Linear):
                    shape = old.in_features, old.out_features
                    new = Linear8bitLt(*shape, bias=False, has_fp16_weights=False)
                    new.load_state_dict(old.state_dict(), strict=False)
                    setattr(module, name, new.to("cpu"))

    return transformers(folder, ids, "dynamic", change)


def onnxruntime(folder, prompt):
    """Our graph in ONNX Runtime: greedy choice in numpy, keys and values handed back each step. The
    run appends each step's logits to a list `seen`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    path = str(folder / "onnx" / "model.onnx")
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    cached = [i for i in session.get_inputs() if i.name.startswith("past")]
    empty = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in cached}
    outputs = [f"present{name.removeprefix('past_key_values')}" for name in empty]

    def run(new, seen=None):
        start, past, given, made = time.perf_counter(), empty, np.array([prompt]), []
        while len(made) < new:
            total = len(prompt) + len(made)
            at = np.arange(total - given.shape[1], total)[None]
            feed = {"input_ids": given, "position_ids": at, **past}
            feed["attention_mask"] = np.ones((1, total), np.int64)
            logits, *kept = session.run(["logits", *outputs], feed)
            past = dict(zip(empty, kept, strict=True))
            made.append(int(logits[0, -1].argmax()))
            given = np.array([made[-1:]])
            if seen is not None:
                seen.append(logits[0, -1])
        return made, time.perf_counter() - start

    return run


def llama(path, prompt, told: int = LIKELIEST):
    """llama.cpp, through the server of the package xllamacpp; FP32 keys and values. The run appends
    to a list `seen` the log-probabilities of each step's `told` likeliest tokens, by id."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.port = str(path), 0
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 512, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.fit_params, params.verbosity = True, False, -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)

    def run(new, seen=None):
        asked = {"prompt": prompt, "n_predict": new, "temperature": 0, "return_tokens": True}
        asked |= {"cache_prompt": False, "samplers": ["temperature"], "ignore_eos": True}
        asked |= {} if seen is None else {"n_probs": told}
        address, kind = f"{server.listening_address}/completion", "application/json"
        request = Request(address, json.dumps(asked).encode(), {"Content-Type": kind})
        with urlopen(request) as answer:
            found = json.load(answer)
        for step in found["completion_probabilities"] if seen is not None else ():
            seen.append({one["id"]: one["logprob"] for one in step["top_logprobs"]})
        times = found["timings"]
        return found["tokens"], (times["prompt_ms"] + times["predicted_ms"]) / 1e3

    return run


def against(table: pd.DataFrame, shape: str, runtime: str) -> tuple[float, tuple] | None:
    """How many times as fast as `runtime` the engine is, in the same bits, with its interval over
    processes; None where one of them has no figures."""
    rows = table[(table["shape"] == shape) & (table.runtime == runtime)]
    if rows.empty or pd.isna(rows.iloc[0].get("over_engine_estimate")):
        return None
    row = rows.iloc[0]
    return row.over_engine_estimate, (row.over_engine_low, row.over_engine_high)


def at_most(table: pd.DataFrame, read: pd.DataFrame, shape: str, runtime: str) -> float:
    """How many times as fast as `runtime` a step would be that took no longer than reading the
    engine's weights of as many bits once; NaN where the runtime has no figures."""
    row = table[(table["shape"] == shape) & (table.runtime == runtime)].iloc[0]
    own = read[(read["shape"] == shape) & (read.bits == row.bits)]
    return row.get("us_per_token", np.nan) / (1e6 * own.seconds.median())


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a reader wants it: results first, and why there are none last."""
    columns = {
        "shape": "model",
        "runtime": "runtime",
        "us_per_token": "µs per token",
        "low": "low",
        "high": "high",
        "over_engine_estimate": "times the engine's",
        "first_ms": "first token, ms",
        "equal_tokens": "leading tokens equal",
        "file_mb": "files, MB",
        "why_not": "why there are none",
    }
    return table[list(columns)].rename(columns=columns)


def summary(table: pd.DataFrame, shape: str) -> str:
    """The fastest of ours and of theirs at one shape, in a sentence or two."""
    own = table[(table["shape"] == shape) & table.us_per_token.notna()].set_index("runtime")
    own = own.us_per_token
    mine = own[own.index.isin([OURS, *FORMATS])]
    theirs = own.drop(mine.index)
    best = mine.idxmin()
    told = f"At {shape} the fastest of ours is {best} with **{mine[best]:,.0f} µs** per token"
    if theirs.empty:
        return f"{told}; no other runtime was there to be measured."
    other = theirs.idxmin()
    return f"{told}, the fastest of the others {other} with **{theirs[other]:,.0f} µs**."


def clear(folder: Path) -> None:
    """Deletes what `measure` wrote: models that serve nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
