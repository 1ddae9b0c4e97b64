"""Whatever is asked of the engine wrongly is an error in Python: nothing reaches a pointer."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import minitransformer
from minitransformer.cache import make_cache
from minitransformer.decode import Sampling
from minitransformer.model import ModelConfig
from minitransformer.native import NativeModel, generate
from minitransformer.native.build import build
from minitransformer.quant import QuantScheme, accelerate, quantize
from native_models import FORCES, ids_of, model_of, needs_compiler

pytestmark = needs_compiler
CFG = ModelConfig(vocab_size=20, d_model=16, n_heads=2, context=24)


@pytest.fixture(scope="module")
def engine():
    return NativeModel(model_of(CFG))


def good(*shape):
    return torch.randint(0, 20, shape)


WRONG_IDS = {
    "a float": lambda: torch.rand(1, 4),
    "a bool": lambda: torch.ones(1, 4, dtype=torch.bool),
    "bytes": lambda: good(1, 4).to(torch.uint8),
    "one axis": lambda: good(4),
    "three axes": lambda: good(1, 4, 2),
    "no token": lambda: good(1, 0),
    "no row": lambda: good(0, 4),
    "negative": lambda: good(1, 4) - 100,
    "past the vocabulary": lambda: good(1, 4) + 20,
    "huge": lambda: torch.full((1, 4), 2**40),
    "too many rows": lambda: good(1025, 1),
    "meta": lambda: torch.zeros(1, 4, dtype=torch.long, device="meta"),
}


@pytest.mark.parametrize("name", WRONG_IDS)
def test_wrong_ids(engine, name):
    for call in (engine, engine.hidden, lambda ids: generate(engine, ids, 3)):
        with pytest.raises(ValueError):
            call(WRONG_IDS[name]())


def test_too_long(engine):
    for call in (
        lambda: engine(good(1, 25)),
        lambda: generate(engine, good(1, 20), 6),
        lambda: generate(engine, good(1, 20), 6, cache="paged"),
        lambda: engine(good(1, 5), make_cache(CFG, "static", 1, 4)),
        lambda: generate(engine, good(1, 3), 6, cache=make_cache(CFG, "static", 1, 4)),
    ):
        with pytest.raises(ValueError, match="context|capacity"):
            call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_cache(CFG, "dynamic", 1, 24),
        lambda: make_cache(CFG, "int4", 1, 24),
        lambda: make_cache(CFG, "static", 2, 24),
        lambda: make_cache(CFG, "static", 1, 24, dtype=torch.float64),
        lambda: make_cache(CFG, "static", 1, 24, starts=[2]),
        lambda: make_cache(CFG, "paged", 1, 24, dtype=torch.float16),
        lambda: make_cache(ModelConfig(vocab_size=20, d_model=16, n_heads=4), "static", 1, 24),
        lambda: make_cache(ModelConfig(vocab_size=20, d_model=16, n_heads=2, n_layers=2), "paged"),
    ],
)
def test_wrong_caches(engine, make):
    for call in (engine, lambda ids, cache: generate(engine, ids, 2, cache=cache)):
        cache = make()
        with pytest.raises(ValueError):
            call(good(1, 2), cache)
        assert cache.pos == 0


def test_wrong_choices(engine):
    for options in (
        {"stop": (20,)},
        {"stop": (-1,)},
        {"stop": (1.5,)},
        {"generator": [torch.Generator()] * 3, "sampling": Sampling(1.0)},
    ):
        with pytest.raises(ValueError):
            generate(engine, good(2, 2), 3, **options)
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        generate(engine, good(1, 2), 0)


def test_wrong_states(engine):
    for states in (torch.rand(2, 15), torch.rand(2, 16).double(), torch.rand(())):
        with pytest.raises(ValueError, match="the head takes"):
            engine.head(states)
    with pytest.raises(ValueError, match="on the CPU"):
        engine.head(torch.rand(2, 16, device="meta"))
    assert engine.head(torch.rand(0, 16)).shape == (0, 20)
    assert engine.head(torch.rand(16)).shape == (20,)


@pytest.mark.parametrize("variant", FORCES)
def test_ten_thousand_random_calls(variant):
    """Wrong shapes, types, tokens, positions, blocks and caches: in a process of their own, each
    gives finite numbers or raises a Python error, and nothing crashes."""
    script = Path(__file__).with_name("native_random.py")
    env = {**os.environ, "PYTHONPATH": str(Path(minitransformer.__file__).parent.parent)}
    command = [sys.executable, str(script), "5000", str(len(variant)), str(build(variant))]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    total, refused, *fine = map(int, done.stdout.split())
    assert total == 5000 and 1000 < refused < 4500 and min(fine) > 20, done.stdout


WRONG_ROWS = {
    "a float": ([1.0], [0], [0]),
    "a bool": ([True], [0], [0]),
    "a tensor of floats": (torch.ones(1), [0], [0]),
    "two axes": (torch.ones(1, 1, dtype=torch.long), [0], [0]),
    "meta": (torch.ones(1, dtype=torch.long, device="meta"), [0], [0]),
    "none": ([], [], []),
    "unequal": ([1, 2], [0], [0]),
    "past the vocabulary": ([20], [0], [0]),
    "huge": ([2**70], [0], [0]),
    "another sequence": ([1], [1], [0]),
    "a negative sequence": ([1], [-1], [0]),
    "past the capacity": ([1], [0], [24]),
    "a negative position": ([1], [0], [-1]),
    "a gap": ([1, 2], [0, 0], [0, 2]),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_wrong_rows(engine, name):
    cache = make_cache(CFG, "static", 1, 24)
    assert engine.step([1], [0], [0], cache).shape == (1, 20)  # the view is known from here on
    with pytest.raises(ValueError):
        engine.step(*WRONG_ROWS[name], cache)


def test_wrong_blocks_are_refused(engine):
    cache = make_cache(CFG, "paged", 1, 24, block_size=4)
    with pytest.raises(ValueError, match="block"):
        engine.step([1], [0], [0], cache)  # nothing is reserved
    for table in cache.tables:
        table.reserve(4)
    assert engine.step([1], [0], [0], cache).shape == (1, 20)
    for block in (-1, 10**6):
        cache.tables[0].blocks = [block]
        with pytest.raises(ValueError, match="block"):
            engine.step([1], [0], [0], cache)


def test_wrong_models():
    model = model_of(CFG)
    wrong = {
        "float32": model_of(CFG, 1).double(),
        "accelerate": accelerate(quantize(model, QuantScheme(8)), "dequantized"),
        "token": quantize(
            model, QuantScheme(8, activation_bits=8, activation_granularity="tensor")
        ),
        "scale": quantize(model, QuantScheme(8)),
    }
    wrong["scale"].blocks[0].ffn.up.weight.scale[0] = float("inf")
    for words, one in wrong.items():
        with pytest.raises(ValueError, match=words):
            NativeModel(one)
    with pytest.raises(ValueError, match="variant 'sse'"):
        NativeModel(model, force="sse")
    model_of.cache_clear()


def test_what_is_not_finite_is_said():
    model = quantize(model_of(CFG, 2), QuantScheme(8, activation_bits=8))
    model.blocks[0].ffn_norm.weight.data[3] = float("nan")
    ids = ids_of(CFG, 1, 4)
    for call in (lambda m: m(ids), lambda m: generate(m, ids, 2)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            call(NativeModel(model))
    model = model_of(CFG, 3)
    model.head.bias.data[3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinity"):
        generate(NativeModel(model), ids, 2, sampling=Sampling(1.0))
    for kind in ("weight", "bias"):  # greedy finds no best token either
        model = deepcopy(model_of(CFG, 5))
        getattr(model.head, kind).data[3] = float("nan")
        with pytest.raises(ValueError, match="NaN or infinity"):
            generate(NativeModel(model), ids, 2)
    model = model_of(CFG, 4)
    model.blocks[0].attention.v.weight.data *= 1e9
    for kind in ("int8", "paged-int4"):
        with pytest.raises(ValueError, match="float16 scales"):
            NativeModel(model)(ids, make_cache(CFG, kind, 1, 8))
