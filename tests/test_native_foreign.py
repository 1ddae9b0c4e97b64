"""The engine on another processor, by its own instructions: compiled for 64-bit ARM by zig, run by
qemu."""

import importlib.util
import shutil
import subprocess
import sys
from ctypes import addressof, c_int32, pointer
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_models import takes
from minitransformer.cache import make_cache
from minitransformer.native import NativeModel
from minitransformer.native.build import FLAGS, SOURCE
from minitransformer.native.pack import Held, matrix
from minitransformer.native.structs import Model
from minitransformer.native.views import view
from minitransformer.quant import QuantLinear, quantize
from native_image import Problem, blocks_of, image
from native_models import (
    CONFIGS,
    ROUNDED,
    WEIGHT_ONLY,
    apart,
    even_rope,
    ids_of,
    model_of,
    needs_compiler,
)
from native_products import definition, problems, whole_problems

HARNESS = Path(__file__).with_name("native_foreign.c")
PROCESSORS = {"neon": "generic+dotprod"}
LACKING = [
    *(["ziglang"] if not importlib.util.find_spec("ziglang") else []),
    *(["qemu-aarch64"] if not shutil.which("qemu-aarch64") else []),
]
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"{' and '.join(LACKING)} not installed")


@pytest.fixture(scope="module", params=PROCESSORS)
def program(request, tmp_path_factory):
    """The program for a processor that has these instructions, and their name."""
    made = tmp_path_factory.mktemp("foreign") / request.param
    command = [
        *(sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"),
        *(*FLAGS, "-Wno-psabi", f"-mcpu={PROCESSORS[request.param]}", "-I", str(SOURCE.parent)),
        *(str(HARNESS), "-o", str(made), "-lm"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return made, request.param


def answer(program, columns, problem, tensors, structures):
    """What the program makes of a problem: (rows, columns)."""
    made, instructions = program
    data = image(problem, tensors, structures)
    done = subprocess.run(["qemu-aarch64", str(made)], input=data, capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    said, _, numbers = done.stdout.partition(b"\n")
    assert said.decode() == instructions
    return torch.frombuffer(bytearray(numbers), dtype=torch.float32).view(-1, columns)


def multiply(program, layer, x):
    held = Held()
    weight, host = matrix(layer, held), Model(width=x.shape[1], heads=1, kv_heads=1, head_dim=8)
    problem = Problem(*(pointer(host), pointer(weight), x.data_ptr()), rows=len(x), tokens=1)
    return answer(program, weight.rows, problem, [*held.tensors, x], [host, weight])


@settings(max_examples=60)
@given(problem=whole_problems())
def test_integers_are_exact(program, problem):
    assert torch.equal(multiply(program, *problem), definition(*problem)[0].float())


@settings(max_examples=60)
@given(problem=problems(), scheme=st.sampled_from([None, *WEIGHT_ONLY, *ROUNDED]))
def test_products_are_their_definition(program, problem, scheme):
    layer, x = problem
    if scheme is not None:
        layer = QuantLinear.from_linear(layer, scheme)
    expected, bound = definition(layer, x.contiguous())
    assert ((multiply(program, layer, x.contiguous()).double() - expected).abs() <= bound).all()


KINDS = {"static": {}, "window": {"window": 9, "sinks": 3}, "int8": {}}


@needs_compiler
@settings(max_examples=40)
@given(
    cfg=CONFIGS,
    scheme=st.sampled_from([None, *WEIGHT_ONLY]),
    kind=st.sampled_from([*KINDS]),
    batch=st.integers(1, 2),
    n=st.sampled_from([1, 2, 9, 20]),
)
@torch.no_grad()
def test_a_step_is_that_of_this_processor(program, cfg, scheme, kind, batch, n):
    assume(even_rope(cfg) and takes(kind, cfg))
    model, ids = model_of(cfg), ids_of(cfg, batch, n)
    native = NativeModel(model if scheme is None else quantize(model, scheme))
    here = native(ids, make_cache(cfg, kind, batch, n, **KINDS[kind])).flatten(0, 1)
    cache = make_cache(cfg, kind, batch, n, **KINDS[kind])
    seen, rows = view(cache), batch * n
    row = c_int32 * rows
    token, position = row(*ids.flatten().tolist()), row(*list(range(n)) * batch)
    sequence = row(*(b for b in range(batch) for _ in range(n)))
    problem = Problem(model=pointer(native.struct), cache=pointer(seen.struct))
    problem.rows, problem.tokens = rows, seen.seen(n)
    structures = [native.struct, blocks_of(native.struct), seen.struct, *seen.arrays, seen.table]
    for name, numbers in (("token", token), ("sequence", sequence), ("position", position)):
        setattr(problem, name, addressof(numbers))
        structures.append(numbers)
    stored = [tensor for layer in seen.parts for tensor in layer]
    tensors = [*native.held.tensors, *stored]
    there = answer(program, cfg.vocab_size, problem, tensors, structures)
    # An 8-bit cache may round a number to the other side of a step's middle.
    assert apart(there, here) < (2e-2 if kind == "int8" else 1e-4)
