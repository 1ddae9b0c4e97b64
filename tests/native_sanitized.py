"""Run by test_native_build under sanitizers: argument 1 is the library; prints "clean" at the end.

Not a test file: under LD_PRELOAD a fresh interpreter is needed."""

import ctypes
import sys
from itertools import cycle

import torch

from minitransformer.cache import make_cache
from minitransformer.decode import Sampling
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeModel, Rows, generate
from minitransformer.native import model as face
from minitransformer.native.memory import Memory
from minitransformer.native.structs import declare
from minitransformer.quant import QuantScheme, quantize

engine = declare(ctypes.CDLL(sys.argv[1]))
face.library = lambda variant: engine
Memory.hold = lambda self, tensor: tensor.contiguous().clone()  # the sanitizer knows its end

SCHEMES = cycle(
    [
        None,
        QuantScheme(8, activation_bits=8),
        QuantScheme(4, "group", 16, symmetric=False, activation_bits=8),
        QuantScheme(4, "group", 32, codebook="nf4"),
        QuantScheme(3, "group", 8),
        QuantScheme(8, "group", 10, activation_bits=5, activation_symmetric=False),
        QuantScheme(6),
    ]
)
THREADS = cycle([1, 2, 3])
CONFIGS = [
    ModelConfig(vocab_size=33, d_model=30, n_heads=3, d_ff=37, context=50),
    ModelConfig(vocab_size=5, d_model=8, n_heads=1, ffn="gelu", position="none", context=50,
                smeared_keys=True),
    ModelConfig(
        vocab_size=30, d_model=64, n_heads=4, n_kv_heads=2, norm="rmsnorm", ffn="swiglu",
        bias=False, tied=True, qk_norm=True, n_layers=2, context=50,
    ),
    ModelConfig(
        vocab_size=30, d_model=64, n_heads=2, n_kv_heads=1, smeared_keys=True, qk_norm=True,
        n_layers=2, context=50,
    ),
    ModelConfig(
        vocab_size=9, d_model=24, n_heads=2, position="sinusoidal", ffn="relu2", context=50,
    ),
]  # fmt: skip
KINDS = {
    "window": {"window": 7, "sinks": 2},
    "int8": {},
    "paged": {},
    "paged-int4": {"block_size": 3},
}

with torch.no_grad():
    for cfg in CONFIGS * 2:
        torch.manual_seed(0)
        model, scheme = Transformer(cfg).eval(), next(SCHEMES)
        model = model if scheme is None else quantize(model, scheme)
        native = NativeModel(model, threads=next(THREADS))
        for batch, n in ((1, 1), (3, 9), (2, 50)):
            native(torch.randint(0, cfg.vocab_size, (batch, n)))
        ids = torch.randint(0, cfg.vocab_size, (2, 5))
        for s in (None, Sampling(1.0, top_k=3), Sampling(0.8, top_p=0.7, repetition_penalty=1.2)):
            generate(native, ids, 46, sampling=s, stop=(1,))
        rows, texts = Rows(native, 4, 50), ids[:1].tolist()
        for k in (4, 3, 4, 1):
            pairs = rows.best(texts, [-1.0] * len(texts), k)
            parents = [place // cfg.vocab_size for _, place in pairs]
            rows.select(parents)
            texts = [
                [*texts[row], place % cfg.vocab_size]
                for row, (_, place) in zip(parents, pairs, strict=True)
            ]
        rows.matched(torch.tensor(texts), 4)
        for kind, options in KINDS.items():
            if kind != "window" or (cfg.position != "sinusoidal" and not cfg.smeared_keys):
                generate(native, ids, 46, cache=make_cache(cfg, kind, 2, 50, **options))
print("clean")
