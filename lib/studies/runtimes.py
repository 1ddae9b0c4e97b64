"""The runtimes that people use, each as a way to continue one prompt greedily on one thread.

Each is loaded as its own documents say. What is timed is what a user waits for: the whole call for
Python libraries, and for llama.cpp the time that its server states, without HTTP.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minitransformer.checkpoint import load
from minitransformer.decode import generate

from .llama import Llama
from .native import FORMATS, missing, packed

GGUF = ("f32", "q8_0", "q4_0")
LIKELIEST = 10  # tokens whose log-probabilities llama.cpp tells
ANSWER = 2**17  # log-probabilities in one of its answers; of a large vocabulary they are many bytes
OURS = "this library, eager"


@dataclass(frozen=True)
class Runtime:
    """A way to continue a prompt: `run(new)` gives the tokens and the seconds that they took."""

    name: str
    bits: int
    file: str
    start: Callable[[], Callable[[int], tuple[list[int], float]]]


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
    model = packed(load(folder / "model")[0], [name])[name]
    return called(partial(generate, model, ids, backend="native"))


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
    """llama.cpp, in a process of its own. The run appends to a list `seen` the log-probabilities of
    each step's `told` likeliest tokens, by id."""
    server = Llama(path)
    # Told to ignore an end of text, it takes the next best token instead: so it may stop there, and
    # is asked to go on from what it holds.
    asked = {"temperature": 0, "return_tokens": True, "samplers": ["temperature"]}

    def run(new, seen=None):
        made, seconds = [], 0.0
        most, more = (new, {}) if seen is None else (max(1, ANSWER // told), {"n_probs": told})
        while len(made) < new:
            part = {"prompt": [*prompt, *made], "n_predict": min(most, new - len(made))}
            found = server.ask("completion", asked | more | part | {"cache_prompt": bool(made)})
            for step in found["completion_probabilities"] if more else ():
                seen.append({one["id"]: one["logprob"] for one in step["top_logprobs"]})
            if not found["tokens"]:
                raise RuntimeError(f"llama.cpp wrote {len(made)} tokens of {new}")
            made += found["tokens"]
            seconds += (found["timings"]["prompt_ms"] + found["timings"]["predicted_ms"]) / 1e3
        return made, seconds

    run.grown = server.grown
    return run
