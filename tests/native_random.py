"""Run by the tests in a process of its own: so many random calls, most of them wrong, with a seed.

Each must give finite numbers or raise a Python error. Prints how many did which; a crash prints
nothing. Argument 3, if given, is a library built with sanitizers."""

import ctypes
import random
import sys
from collections import Counter

import torch

from minitransformer.cache import BlockPool, PagedCache, PoolExhausted, make_cache
from minitransformer.decode import Sampling
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeModel, Rows, generate
from minitransformer.native import model as face
from minitransformer.native.memory import Memory
from minitransformer.native.structs import declare
from minitransformer.quant import QuantScheme, quantize

calls, seed = int(sys.argv[1]), int(sys.argv[2])
if len(sys.argv) > 3:
    engine = declare(ctypes.CDLL(sys.argv[3]))
    face.library = lambda variant: engine
    Memory.hold = lambda self, tensor: tensor.contiguous().clone()  # the sanitizer knows its end
rng = random.Random(seed)
torch.manual_seed(seed)
CFG = ModelConfig(vocab_size=20, d_model=32, n_heads=4, n_kv_heads=2, context=24)
OTHER = ModelConfig(vocab_size=20, d_model=16, n_heads=2, n_layers=2, context=24)
model = Transformer(CFG).eval()
MODELS = [
    NativeModel(model),
    NativeModel(quantize(model, QuantScheme(8, activation_bits=8))),
    NativeModel(quantize(model, QuantScheme(4, "group", 32, activation_bits=8))),
]
NUMBERS = [*range(-2, 5), 11, 19, 20, 23, 24, 25, 63, 2**31 - 1, 2**31, -(2**31), 2**40, -(2**62)]
DTYPES = [torch.int64] * 6 + [torch.int32, torch.uint8, torch.float32, torch.bool, torch.float64]
KINDS = ["static", "window", "int8", "paged", "paged-int8", "paged-int4", "dynamic", "int4"]
ERRORS = (ValueError, PoolExhausted)


def number(small=0.8):
    return rng.randrange(0, 20) if rng.random() < small else rng.choice(NUMBERS)


def ids(batch=None):
    """Token ids, mostly (B, T), mostly of the vocabulary, and mostly of so many rows."""
    shape = rng.choice([(1, 1), (1, 3), (2, 5), (3, 2), (1, 24), (1, 25), (2, 0), (0, 2), (3,), ()])
    if batch and rng.random() < 0.8:
        shape = (batch, rng.choice([1, 1, 2, 5]))
    n = int(torch.tensor(shape).prod()) if shape else 1
    values = [number(0.999) for _ in range(n)]
    made = torch.tensor(values, dtype=torch.int64).reshape(shape).to(rng.choice(DTYPES))
    return made.t() if made.ndim == 2 and rng.random() < 0.2 else made


def cache():
    kind, options = rng.choice(KINDS), {}
    cfg = CFG if rng.random() < 0.9 else OTHER
    if kind == "window":
        options = {"window": rng.randrange(1, 12), "sinks": rng.randrange(0, 4)}
    elif kind == "static" and rng.random() < 0.1:
        options = {"starts": [1]}
    elif kind.startswith("paged"):
        options = {"block_size": rng.choice([1, 3, 4, 16])}
    options["dtype"] = rng.choice([None] * 9 + [torch.float64, torch.float16])
    batch = 1 if "starts" in options else rng.choice([1, 1, 2, 3])
    made = make_cache(cfg, kind, batch, rng.choice([1, 4, 12, 24]), **options)
    if isinstance(made, PagedCache) and rng.random() < 0.6:
        for table in made.tables:
            if rng.random() < 0.8:
                table.reserve(rng.randrange(1, 9)) if made.pool.free else None
        broken(made)
    return made


def broken(paged):
    """Now and then a block that is not there, or was given back."""
    table = rng.choice(paged.tables)
    if table.blocks and rng.random() < 0.3:
        table.blocks = [rng.choice([-1, 10**6, table.blocks[0], 2**33]) for _ in table.blocks]
    elif rng.random() < 0.2:
        paged.pool.references = [0] * paged.pool.blocks


def rows():
    n = rng.randrange(0, 6)
    made = [[number(0.95) for _ in range(n)] for _ in range(3)]
    if rng.random() < 0.7:  # positions that follow one another
        made[1], first = [rng.randrange(3)] * n, rng.randrange(0, 12)
        made[2] = list(range(first, first + n))
    if rng.random() < 0.1:
        made[rng.randrange(3)].append(1)
    return made


def states():
    shape = rng.choice([(2, 32), (32,), (0, 32), (1, 2, 32), (2, 31), (), (32, 2)])
    made = torch.randn(shape).to(rng.choice([torch.float32] * 5 + [torch.float64, torch.int64]))
    return made.t() if made.ndim == 2 and rng.random() < 0.2 else made


def sampling():
    if rng.random() < 0.3:
        return None
    top_k, top_p = rng.choice([None, 1, 5, 10**9]), rng.choice([None, 0.3, 1.0])
    return Sampling(rng.choice([0.0, 1.0, 1e-3]), top_k, top_p, rng.choice([1.0, 1.3]))


def generated(m):
    options = {"sampling": sampling(), "stop": tuple(number() for _ in range(rng.randrange(3)))}
    kind = rng.choice(["static", "paged", "int8", cache()])
    return generate(m, ids(), rng.choice([-1, 0, 1, 3, 30]), cache=kind, **options)


def side_by_side(m):
    """Texts that grow, part and are judged, mostly as they may."""
    made = Rows(m, rng.choice([0, 1, 2, 4, 4]), rng.choice([8, 24, 24, 25]))
    texts = [[number(0.999) for _ in range(rng.choice([0, 1, 2, 5, 25]))]]
    answers = []
    for _ in range(rng.randrange(1, 4)):
        n = rng.choice([1, 1, 1, 2, 3, 6, -1, 0])
        way = rng.choice(["logits", "best", "best", "matched"])
        if way == "logits":
            answers.append(made.logits(texts, n))
        elif way == "matched":
            answers.append(torch.tensor(made.matched(torch.tensor(texts), n)))
        else:
            given = [-1.0] * (len(texts) + (rng.random() < 0.05))
            pairs = made.best(texts, given, rng.choice([1, 3, 20, 10**4, 0]))
            answers.append(torch.tensor(pairs))
        kept = [rng.randrange(len(texts)) for _ in range(rng.choice([1, 1, 2, 4, 5]))]
        made.select(kept)
        texts = [[*texts[row], number(0.999)] for row in kept]
    return torch.cat([answer.flatten() for answer in answers])


WAYS = {
    "call": lambda m: m(ids()),
    "over a cache": lambda m: over(m, cache()),
    "twice": lambda m: twice(m, cache()),
    "last": lambda m: last(m, cache()),
    "step": lambda m: m.step(*rows(), cache()),
    "head": lambda m: m.head(states()),
    "generate": generated,
    "rows": side_by_side,
}


def over(m, given):
    return m(ids(given.batch), given)


def last(m, given):
    return m.last_logits(ids(given.batch), given)


def twice(m, given):
    """A cache that goes on, cut and reordered in between; other sizes are other errors."""
    m.hidden(ids(given.batch), given)
    if rng.random() < 0.5:
        given.truncate(rng.randrange(0, given.pos + 1))
    if rng.random() < 0.3:
        given.select(torch.randint(0, given.batch, (rng.randrange(1, 4),)))
    return m.hidden(ids(given.batch), given)


found = Counter()
with torch.no_grad():
    for _ in range(calls):
        way = rng.choice(list(WAYS))
        try:
            result = WAYS[way](rng.choice(MODELS))
            assert torch.isfinite(result).all(), way
            found[way] += 1
        except ERRORS as error:
            assert "\n" not in str(error), error
            found["refused"] += 1
BlockPool(CFG, 1)
print(sum(found.values()), found["refused"], *(found[way] for way in WAYS))
