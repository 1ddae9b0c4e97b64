"""What a hostile or hurried hand would give to models, training, quantization and checkpoints: the
answer is right, or one line that says what to give; never a traceback of someone else's, never a
hang, never a wrong result."""

import json
import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from minitransformer import bench
from minitransformer.checkpoint import load, save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    KernelError,
    QuantScheme,
    accelerate,
    equalize,
    layer_output_errors,
    load_scheme,
    quantize,
)
from minitransformer.train import NonFiniteError, TrainConfig, initialize, plan, prepare_qat, train
from training import CFG, RUN, batch, equal, fresh, losses
from uneven import ids, uneven

ONE_LINE = (ValueError, OSError, NonFiniteError, KernelError)
SECONDS = 20  # of one input; a hang, not a slow machine
NAN, INF = math.nan, math.inf
A8 = QuantScheme(8, activation_bits=8)


def poisoned(name="head.weight", value=NAN, double=False, **k):
    model = uneven(**k).double() if double else uneven(**k)
    model.get_parameter(name).data.view(-1)[0] = value
    return model


def scaled(factor):
    """A model whose activations are as large as the factor."""
    model = uneven()
    model.blocks[0].ffn_norm.weight.data.mul_(factor)
    return model


def trained(**options):
    config = RUN if "cfg" not in options else options.pop("cfg")
    return train(options.pop("model", fresh()), options.pop("batch", batch), config, **options)


def of(config, **fields):
    return lambda: config(**fields)


def with_method(method, model=uneven, scheme=A8, data=ids, **options):
    calibration = (
        {} if method in ("rtn", "mse") else {"calibration": data() if callable(data) else data}
    )
    return lambda: quantize(model(), scheme, method, **calibration, **options)(ids())


PARAMETERS = {
    f"{config.__name__} {name}={value!r}": of(config, **{name: value})
    for config, given in {
        ModelConfig: {
            "d_model": [0, -8, 32.5, "32", NAN, INF, True, None, [32], 2**40],
            "n_heads": [3, 0],
            "vocab_size": [0, 1e300],
            "context": [-1, "512"],
            "n_kv_heads": [3, 0],
            "d_ff": [0, 0.5],
            "position": ["ropee", None, 1],
            "norm": ["layer", []],
            "ffn": [{}],
            "bias": [1, "no"],
            "rope_theta": [0, -1, NAN, "1e4"],
        },
        QuantScheme: {
            "bits": [0, 1, 9, 32, 4.5, "4", NAN, True, None, [4]],
            "granularity": ["row", None],
            "group_size": [32, 0],
            "scale_dtype": ["float64", torch.float16],
            "codebook": ["nf4"],
            "activation_bits": [1, 16, "8"],
            "outliers": [-1, 0.5],
            "symmetric": ["yes", 0],
        },
        TrainConfig: {
            "steps": [0, -5, 1.5, "100", NAN, 2**40],
            "batch_size": [0, -1],
            "window": [0, None],
            "lr": [0, -1, NAN, INF, "1e-3", True],
            "warmup": [-1, 0.5],
            "cooldown": [-0.1, 1.1, NAN],
            "cooldown_shape": ["round", None],
            "ema": [-0.1, 1, NAN],
            "betas": [0.9, (0.9,), (0.9, 1.0), "ab", (NAN, 0.9)],
            "weight_decay": [-1, INF],
            "clip": [0, INF],
            "initialization": ["zeros", None],
            "short_steps": [5],
        },
    }.items()
    for name, values in given.items()
    for value in values
}

CALLS = (
    {
        "a recipe of no name": lambda: plan("great"),
        "a field of no recipe": lambda: plan("good", learning_rate=1),
        "weights drawn in no way": lambda: initialize(fresh(), "xavier", 0),
        "every 0 steps": lambda: trained(every=0),
        "every nan steps": lambda: trained(every=NAN),
        "a batch of floats": lambda: trained(batch=lambda s: batch(s).float()),
        "a batch of none": lambda: trained(batch=lambda s: None),
        "an empty batch": lambda: trained(batch=lambda s: batch(s)[:0]),
        "a batch without targets": lambda: trained(batch=lambda s: batch(s)[:, :1]),
        "a batch of other words": lambda: trained(batch=lambda s: batch(s) + 20),
        "a batch beyond the context": lambda: trained(batch=lambda s: batch(s).repeat(1, 3)),
        "a teacher of other words": lambda: trained(teacher=uneven()),
        "a poisoned teacher": lambda: trained(teacher=poisoned(vocab_size=23, d_model=16)),
        "a poisoned model": lambda: trained(model=poisoned(vocab_size=23)),
        "a model in float16": lambda: trained(model=fresh().half()),
        "a rate that explodes": lambda: trained(cfg=replace(RUN, lr=1e30)),
        "a log of sets": lambda: trained(on_step=lambda row: {"x": {1}}),
        "a log of no dict": lambda: trained(on_step=lambda row: 1.0),
        "a checkpoint in a device": lambda: trained(checkpoint="/dev/null/run.pt"),
        "a grid for training from data": lambda: prepare_qat(uneven(), 4, "gptq"),
        "a codebook in training": lambda: prepare_qat(uneven(), QuantScheme(4, codebook="nf4")),
        "a scheme in words": lambda: quantize(uneven(), "int8"),
        "a scheme of nothing": lambda: quantize(uneven(), None),
        "a scheme for half of the layers": lambda: quantize(uneven(), {"head": 8}),
        "a scheme of scheme's class": lambda: quantize(uneven(), QuantScheme),
        "a method of no name": lambda: quantize(uneven(), 8, "gptqq"),
        "a quantized model again": lambda: quantize(quantize(uneven(), 8), 8),
        "a poisoned weight": lambda: quantize(poisoned(), 8),
        "an infinite weight": lambda: quantize(poisoned(value=INF), 8, "mse"),
        "a weight of 1e30": lambda: quantize(poisoned(value=1e30), 8),
        "a weight that only float64 holds": lambda: quantize(poisoned(value=1e300, double=True), 8),
        "columns apart of no method": lambda: quantize(uneven(), QuantScheme(outliers=2)),
        "accelerated floats": lambda: accelerate(uneven(), "dequantized"),
        "a kernel of no name": lambda: accelerate(quantize(uneven(), 8), "cuda"),
        "an alpha of 2": lambda: equalize(uneven(), A8, "smoothquant", ids(), 2),
        "an alpha of nan": with_method("smoothquant", alpha=NAN),
        "a damping of 0": with_method("gptq", damping=0),
        "a damping of text": with_method("gptq", damping="1"),
        "a threshold below 0": with_method("llm.int8", threshold=-1),
        "a folder for a scheme": lambda: load_scheme(".", CFG),
        "no repeats": lambda: bench.interleaved({"a": int}, 0),
        "nothing to time": lambda: bench.interleaved({}, 3),
        "no best of any": lambda: bench.best_of(int, 0, 1),
        "no bytes to read": lambda: bench.read_seconds(0),
        "a product of nothing": lambda: bench.matmul_flops_per_second(0),
        "a median of nothing": lambda: bench.median_interval([]),
        "a median of nan": lambda: bench.median_interval([1, NAN]),
        "a share of 1.5": lambda: bench.speculative_tokens(1.5, 4),
        "minus one proposal": lambda: bench.speculative_tokens(0.5, -1),
        "a forward over nothing": lambda: bench.flops(CFG, 0),
        "a cache of no rows": lambda: bench.kv_bytes(CFG, 8, batch=0),
        "a cache of no kind": lambda: bench.kv_bytes(CFG, 8, kind="ring"),
        "steps longer than the text": lambda: bench.step_times(uneven(), ids(1), [99], repeats=1),
        "steps after nothing": lambda: bench.step_times(uneven(), ids(1), [0], repeats=1),
        "a table of no width": lambda: bench.dispatch_table([], {}),
        "a curve of two points": lambda: bench.fit([1, 2], [1, 2], [1, 2, 3], [1, 2, 3], 0),
        "a curve of nan": lambda: bench.fit([1, 2, 3], [1, NAN, 2], [1, 2, 3], [1, 2, 3], 0),
        "curves of unequal length": lambda: bench.fit([1, 2, 3], [1, 2], [1, 2, 3], [1, 2, 3], 0),
        "a speed-up of no token": lambda: bench.TimeModel(1, 1, 1, 1, 1, 1, (0, 2)).speedup(1, 0),
        "growth of no step": lambda: bench.process_growth(list, 0),
    }
    | {
        f"{method} on data of {name}": with_method(method, data=data)
        for method in ("gptq", "awq", "smoothquant", "llm.int8")
        for name, data in {
            "no token": [],
            "text": "abc",
            "floats": [[0.5]],
            "other words": [[50]],
            "nothing": None,
            "raggedness": [[1], [2, 3]],
        }.items()
    }
    | {
        f"{method} on activations of {value}": with_method(method, model=lambda v=value: scaled(v))
        for method in ("gptq", "awq", "smoothquant", "llm.int8")
        for value in (NAN, INF, 1e35)
    }
)


def refused(call):
    """The one line that the call dies with."""
    began = time.monotonic()
    with pytest.raises(ONE_LINE) as caught:
        call()
    assert time.monotonic() - began < SECONDS
    message = str(caught.value)
    assert message and "\n" not in message and ": " in message and len(message) < 600, message
    return message


def test_every_impossible_parameter_is_one_line_before_anything_is_built():
    assert len(PARAMETERS) > 80
    for name, call in PARAMETERS.items():
        config, field = name.split("=")[0].split()
        message = refused(call)
        assert field.split("_")[0] in message or field == "codebook", (config, message)


@torch.no_grad()
def test_every_impossible_call_is_one_line():
    for name, call in CALLS.items():
        with torch.enable_grad():
            try:
                refused(call)
            except BaseException as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


@torch.no_grad()
@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant", "llm.int8"])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e10, 1e17])
def test_activations_of_any_size_that_can_be_squared_are_calibrated_on(method, factor):
    """Up to where the norm after them overflows."""
    model = scaled(factor)
    small = quantize(model, replace(A8, scale_dtype="float32"), method, ids(4))
    errors = [row["relative_output_error"] for row in layer_output_errors(model, small, ids(4))]
    if method in ("gptq", "llm.int8"):
        assert all(0 <= e < 0.05 for e in errors)
    assert small(ids()).isfinite().all()


def flipped(data, seed, kind):
    """The bytes of a file, damaged."""
    rng = random.Random(seed)
    at = rng.randrange(len(data))
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "hole":
        end = min(len(data), at + rng.randrange(1, 4096))
        return data[:at] + bytes(end - at) + data[end:]
    if kind == "twice":
        return data[:at] + data
    return data + rng.randbytes(rng.randrange(1, 300))


KINDS = ["bit", "cut", "hole", "twice", "tail"]


def test_a_damaged_training_checkpoint_is_refused_or_goes_on_to_the_bit(tmp_path):
    path, straight = tmp_path / "run.pt", fresh()
    whole = train(straight, batch, RUN, checkpoint=path)
    data, refusals = path.read_bytes(), 0
    for seed in range(60):
        path.write_bytes(flipped(data, seed, KINDS[seed % 5]))
        again = fresh()
        try:
            rows = train(again, batch, RUN, checkpoint=path)
            assert losses(rows) == losses(whole) and equal(again, straight), seed
        except ValueError as error:
            refusals += 1
            assert "\n" not in str(error) and "run.pt" in str(error), error
    assert refusals > 40


def test_a_damaged_folder_is_refused_or_is_the_model_that_was_saved(tmp_path):
    model = quantize(fresh(), QuantScheme(4, "group", 8)).eval()
    probe = batch(0)[:, :8]
    folder, exact, refusals = save(model, tmp_path / "m"), model(probe), 0
    for name in ("model.safetensors", "config.json"):
        data = (folder / name).read_bytes()
        for seed in range(50):
            (folder / name).write_bytes(flipped(data, seed, KINDS[seed % 5]))
            try:
                again = load(folder)[0]
                # a digit of the configuration may have become another: then it says so, and only
                # what the weights do not depend on can differ
                assert again.cfg != model.cfg or torch.equal(again(probe), exact)
                assert (
                    json.loads((folder / name).read_text())["model"]["context"] == again.cfg.context
                )
            except (ValueError, FileNotFoundError) as error:
                refusals += 1
                assert "\n" not in str(error), error
        (folder / name).write_bytes(data)
    assert refusals > 85 and torch.equal(load(folder)[0](probe), exact)


def test_good_values_in_odd_clothes_are_taken():
    cfg = ModelConfig(
        vocab_size=np.int32(23), d_model=16.0, n_heads=np.int64(2), context=np.array(16)
    )
    assert cfg == CFG and hash(cfg) == hash(CFG)
    model = initialize(Transformer(cfg), "scaled", 0)
    run = plan(
        "seed",
        **{f: getattr(RUN, f) for f in ("steps", "batch_size", "window")},
        lr=np.float32(0.01),
    )
    assert len(train(model, batch, run, every=2.0)) == 7
    assert quantize(model, np.int64(4)).scheme == QuantScheme(bits=4.0)
