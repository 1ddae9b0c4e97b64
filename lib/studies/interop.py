"""Does a model trained here say the same in the runtimes that people use?

Where it can, a runtime gets the same weights: FP32, or the same integers of int8 and int4 in groups
of 32, each in the file that is its own. What it says is held against PyTorch that recomputes every
step, token by token and logit by logit. A runtime that is not here, or a model that its format
cannot express, is a row with the reason."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
import torch

from minitransformer.cache import make_cache
from minitransformer.checkpoint import load, save
from minitransformer.decode import generate, prefill
from minitransformer.export import to_gguf, to_huggingface, to_onnx
from minitransformer.export.web import to_web
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeModel
from minitransformer.native.wasm import WASM
from minitransformer.quant import QuantScheme, quantize

from . import peers, runtimes
from .hosts import Browser, HostError, Node
from .native import missing
from .peers import clear as clear
from .words import plain

FORMATS = {"FP32": None, "int8": QuantScheme(8, "group", 32), "int4": QuantScheme(4, "group", 32)}
OWN, LLAMA = "this run's", "of Llama's shape"
EAGER, ENGINE = "PyTorch with a cache", "C engine"
ORT_WEB = "1.30.0"  # the version of onnxruntime-web that was tried
NPM = f"npm install --prefix .cache/npm onnxruntime-web@{ORT_WEB}"
BRINGS = {  # what is absent -> the command that brings it
    "transformers": 'pip install "transformers>=5"', "xllamacpp": "pip install xllamacpp",
    "onnx": 'pip install ".[export]"', "gguf": 'pip install ".[export]"',
    "onnxruntime": 'pip install ".[ort]"',
}  # fmt: skip
ROUNDS = "llama.cpp"  # its int8 and int4 round activations too, so that its tokens may part
PEERS = ("node", "browser", "transformers", "ONNX Runtime", "onnxruntime-web", ROUNDS)


@dataclass
class Case:
    """One model in one format, and its files below `folder`, each written when first asked for."""

    folder: Path
    model: object
    tokenizer: object
    prompt: list[int]
    web: Path
    hosts: dict = field(default_factory=dict)

    @cached_property
    def ids(self) -> torch.Tensor:
        return torch.tensor([self.prompt])

    @cached_property
    def saved(self) -> Path:
        save(self.model, self.folder / "model")
        return self.folder / "model"

    @cached_property
    def hf(self) -> Path:
        return to_huggingface(self.model, self.folder / "hf")

    @cached_property
    def onnx(self) -> Path:
        return to_onnx(self.model, self.folder / "onnx") / "onnx" / "model.onnx"

    @cached_property
    def gguf(self) -> Path:
        cfg, path = self.model.cfg, self.folder / "model.gguf"
        rewrite = (cfg.norm, cfg.ffn) == ("layernorm", "relu")
        return to_gguf(self.model, path, self.tokenizer, rewrite=rewrite)

    @cached_property
    def header(self) -> dict:
        header, image = to_web(self.model)
        (self.folder / "model.image").write_bytes(image)
        return header

    @cached_property
    def image(self) -> Path:
        return self.folder / "model.image" if self.header else None

    def host(self, kind: type):
        """The host of a kind, started once for all cases; HostError where there is none."""
        if kind not in self.hosts:
            try:
                self.hosts[kind] = kind()
            except HostError as error:
                self.hosts[kind] = error
        if isinstance(self.hosts[kind], HostError):
            raise self.hosts[kind]
        return self.hosts[kind]


@dataclass(frozen=True)
class Runtime:
    """`start(case)` gives run(new, seen) -> (tokens, seconds), which appends the logits of every
    step to a list `seen`; `file` is the case's file that it reads, `most` its most tokens."""

    name: str
    file: str
    start: Callable
    most: int = 2**31


def eager(case):
    return forward(load(case.saved)[0], case)


def engine(case):
    if reason := missing():
        raise RuntimeError(reason)
    return forward(NativeModel(load(case.saved)[0]), case, backend="native")


def forward(model, case, **how):
    """A run of ours."""

    def begin():
        cache = make_cache(model.cfg)
        return lambda ids: prefill(model, ids, cache)[0]

    return recorded(runtimes.called(partial(generate, model, case.ids, **how)), begin, case)


def recorded(timed, begin, case):
    """A timed run; its logits are those of its steps, one after the other over a cache: `begin()`
    gives the function that takes ids (1, T) further and returns the last one's logits (V,)."""

    def run(new, seen=None):
        tokens, seconds = timed(new)
        if seen is not None:
            seen.extend(stepped(begin(), case.prompt, tokens))
        return tokens, seconds

    return run


@torch.no_grad()
def stepped(further, prompt, tokens) -> list[np.ndarray]:
    """Logits of every step that wrote `tokens`, each fed as it was written: new times (V,)."""
    fed = [prompt, *([token] for token in tokens[:-1])]
    return [further(torch.tensor([ids])).numpy() for ids in fed]


@torch.no_grad()
def steps(model, prompt, tokens) -> np.ndarray:
    """The same logits without a cache, by one pass over the text: (new, V)."""
    return model(torch.tensor([prompt + tokens[:-1]]))[0, len(prompt) - 1 :].numpy()


def transformers(case):
    from transformers import AutoModelForCausalLM, DynamicCache

    folder = case.hf
    model = AutoModelForCausalLM.from_pretrained(folder)

    def begin():
        past = DynamicCache(config=model.config)
        return lambda ids: model(ids, past_key_values=past, use_cache=True).logits[0, -1]

    return recorded(runtimes.transformers(folder.parent, case.ids, "dynamic"), begin, case)


def ort(case):
    return runtimes.onnxruntime(case.onnx.parent.parent, case.prompt)


def llama(case):
    return runtimes.llama(case.gguf, case.prompt, case.model.cfg.vocab_size)


def hosted(where, case, **start):
    """A model in a JavaScript host; paths become the host's own."""
    host = case.host(where)
    name = f"{case.folder} {start['kind']} {start.get('provider')}"
    placed = {k: host.place(v) if isinstance(v, Path) else v for k, v in start.items()}
    if "ort" in placed:
        placed["paths"] = None if where is Node else f"{placed['ort']}/"
        placed["ort"] += "/ort.node.min.mjs" if where is Node else "/ort.webgpu.min.mjs"
    scripts = host.place(case.web / "reports" / "template")
    adapter = host.ask(start={"name": name, "scripts": scripts, **placed})

    def run(new, seen=None):
        asked = {"name": name, "prompt": case.prompt, "most": new, "keep": seen is not None}
        told = host.ask(run=asked)
        if seen is not None:
            seen.extend(np.frombuffer(b64decode(one), "<f4") for one in told["seen"])
        return told["tokens"], told["seconds"]

    run.adapter = adapter
    return run


def wasm(where, case):
    return hosted(where, case, kind="engine", wasm=WASM, header=case.header, image=case.image)


def ort_web(where, provider, case):
    folder = case.web / ".cache" / "npm" / "node_modules" / "onnxruntime-web" / "dist"
    if not folder.is_dir():
        raise HostError(f"onnxruntime-web is not installed: {NPM}")
    shape = {"heads": case.model.cfg.kv_heads, "width": case.model.cfg.head_dim}
    start = {"kind": "onnx", "ort": folder, "provider": provider, "model": case.onnx, **shape}
    return hosted(where, case, **start)


RUNTIMES = (
    Runtime(EAGER, "saved", eager),
    Runtime(ENGINE, "saved", engine),
    Runtime("C engine as WebAssembly (node)", "image", partial(wasm, Node)),
    Runtime("C engine as WebAssembly (browser)", "image", partial(wasm, Browser)),
    Runtime("transformers", "hf", transformers),
    Runtime("ONNX Runtime", "onnx", ort),
    Runtime("onnxruntime-web WASM (node)", "onnx", partial(ort_web, Node, "wasm")),
    Runtime("onnxruntime-web WASM (browser)", "onnx", partial(ort_web, Browser, "wasm")),
    # a software adapter takes a tenth of a second a token
    Runtime("onnxruntime-web WebGPU (browser)", "onnx", partial(ort_web, Browser, "webgpu"), 16),
    Runtime(ROUNDS, "gguf", llama),
)


def chosen(only, runtime: str) -> bool:
    """Whether a runtime is asked for: ours in this process always, others by a word of theirs."""
    return "all" in only or runtime in (EAGER, ENGINE) or any(word in runtime for word in only)


def measure(folder, web, source, prompt, new: int, repeats: int, seed: int, only) -> dict:
    """Samples of one process: `interop` (model, format, runtime, repeat, tokens, seconds), and
    `interop_told` with what each runtime said of each model and format, or why it said nothing.

    `source` is the folder of the trained model, `prompt` ids of its vocabulary, `web` the project's
    root, where hosts find the page's script and onnxruntime-web."""
    folder, hosts, ways, told = Path(folder), {}, {}, []
    model, tokenizer = load(source)
    try:
        for name, one in ((OWN, model), (LLAMA, alike(model.cfg, seed))):
            for format, scheme in FORMATS.items():
                place = folder / f"{len(told)}"
                place.mkdir(parents=True)
                small = one if scheme is None else quantize(one, scheme)
                case = Case(place, small, tokenizer, list(prompt), Path(web), hosts)
                for runtime, row, run in examined(case, new, only):
                    key = {"model": name, "format": format, "runtime": runtime.name}
                    told.append(key | row)
                    if run is not None and not row["software"]:
                        ways[tuple(key.values())] = partial(run, min(new, runtime.most)), key
        rows = [
            key | {"repeat": repeat, "tokens": len(tokens), "seconds": seconds}
            for repeat in range(repeats)
            for run, key in ways.values()
            for tokens, seconds in [run()]
        ]
    finally:
        for host in hosts.values():
            if not isinstance(host, HostError):
                host.close()
    return {"interop": pd.DataFrame(rows), "interop_told": pd.DataFrame(told)}


def alike(cfg, seed: int) -> Transformer:
    """A model of random weights in the one family that every runtime can express, of this
    vocabulary and width: RMSNorm, SwiGLU, RoPE, grouped queries, no biases."""
    torch.manual_seed(seed)
    heads = cfg.n_heads // 2 if cfg.n_heads % 2 == 0 else None
    shape = {name: getattr(cfg, name) for name in ("vocab_size", "d_model", "n_heads", "context")}
    family = {"norm": "rmsnorm", "ffn": "swiglu", "bias": False}
    cfg = ModelConfig(**shape, **family, n_layers=2, n_kv_heads=heads)
    model = Transformer(cfg).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=peers.SPREAD)
    return model


def examined(case, new, only):
    """What each runtime says of one case, beside PyTorch that recomputes: rows and runs."""
    wanted = generate(case.model, case.ids, new, cache=None)[0, len(case.prompt) :].tolist()
    logits = steps(case.model, case.prompt, wanted)
    for runtime in RUNTIMES:
        row = {"equal": 0, "of": 0, "worst": np.nan, "kl": np.nan, "bytes": np.nan}
        row |= {"software": False, "adapter": "", "reason": ""}
        run, most = None, min(new, runtime.most)
        try:
            if not chosen(only, runtime.name):
                raise RuntimeError("not asked for: --set 'interop=[\"all\"]'")
            run, seen = runtime.start(case), []
            tokens = run(most, seen)[0]
            same = int(np.cumprod(np.equal(tokens, wanted[:most])).sum())
            row |= {"equal": same, "of": most, "worst": worst(seen, logits, same)}
            row["kl"] = divergence(seen[: same + 1], logits)
            row |= {"bytes": peers.size(getattr(case, runtime.file)), **getattr(run, "adapter", {})}
        except Exception as error:  # whatever a library that is not ours may raise
            run, row["reason"] = None, why(error)
        yield runtime, row, run


def why(error) -> str:
    """One line, with the command that brings what is absent."""
    if isinstance(error, ImportError) and error.name in BRINGS:
        return f"{error.name} is not installed: {BRINGS[error.name]}"
    return shorten(plain(" ".join(str(error).split())), 170, placeholder=" …")


def worst(seen, logits, same: int) -> float:
    """Largest difference of logits over the steps whose text was equal; of log-probabilities where
    a runtime tells only those, of some tokens."""
    found = 0.0
    for given, wanted in zip(seen[: same + 1], logits, strict=False):
        if isinstance(given, dict):
            wanted = torch.tensor(wanted).log_softmax(-1).numpy()[list(given)]
            given = np.array([*given.values()])
        found = max(found, float(np.abs(given - wanted).max()))
    return found


def divergence(seen, logits) -> float:
    """Largest KL divergence of a step, in nats, from PyTorch's distribution to the one that a
    runtime tells of the same weights; NaN where it does not tell all of it."""
    wanted = torch.tensor(logits[: len(seen)]).double().log_softmax(-1)
    if not all(isinstance(one, dict) and len(one) == wanted.shape[1] for one in seen):
        return np.nan
    said = torch.tensor([[one[i] for i in range(len(one))] for one in seen])
    return float((wanted.exp() * (wanted - said)).sum(-1).max())


def table(samples: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """`told` with the median of tokens a second over repeats, the first left out where there are
    three or more: it warms caches and compilers."""
    keys = ["model", "format", "runtime"]
    timed = samples[samples.repeat > 0] if samples.repeat.max() > 1 else samples
    speed = (timed.tokens / timed.seconds).groupby([timed[key] for key in keys]).median()
    return told.join(speed.rename("tokens_per_second"), on=keys).drop(columns="process")
