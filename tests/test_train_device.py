"""Where and in what a model is trained: the device by its name, and bfloat16 beside FP32."""

import os
import warnings
from dataclasses import replace

import pytest
import torch

from minitransformer.model import Transformer
from minitransformer.train import device_of, initialize, train
from minitransformer.train.backward import Backward
from minitransformer.train.muon import orthogonal
from minitransformer.train.ranks import Alone
from training import CFG, RUN, batch, equal, fresh, losses

HALF = replace(RUN, precision="bfloat16")


def stop_at_four(row):
    if row["step"] == 4:
        raise KeyboardInterrupt


def have(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_is_the_first_that_there_is(monkeypatch):
    for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        have(monkeypatch, cuda, mps)
        assert device_of() == device_of("auto") == device_of(wanted) == torch.device(wanted)
        assert device_of("cpu") == torch.device("cpu")


def test_what_torch_tells_of_its_own_context_is_left_out(monkeypatch, recwarn):
    have(monkeypatch, True, False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        device_of("cuda")
        warnings.warn("Attempting to run cuBLAS, but there was no current context", stacklevel=1)
        warnings.warn("anything else", stacklevel=1)
    assert [str(told.message) for told in recwarn] == ["anything else"]


def test_a_device_that_is_not_there_is_named(monkeypatch):
    have(monkeypatch, False, False)
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"^device {name} is not there: give auto, or cpu"):
            device_of(name)
    with pytest.raises(ValueError, match="^device 'cudo' is unknown"):
        device_of("cudo")


KINDS = [
    {},
    {"norm": "rmsnorm", "ffn": "relu2", "qk_norm": True, "tied": True, "smeared_keys": True},
    {"position": "sinusoidal", "ffn": "swiglu", "n_kv_heads": 1},
    {"position": "none", "ffn": "gelu", "bias": False},
]


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_all_that_a_step_computes_is_where_the_model_is(changes, taught):
    """On the meta device, which computes nothing and where no tensor of another may take part: what
    a GPU would refuse is seen without one."""
    model = Transformer(replace(CFG, **changes)).to("meta")
    teacher = fresh(1).to("meta") if taught else None
    loss = Backward(model, model, RUN, teacher, Alone())(batch(0))
    assert loss.device.type == "meta" and loss.shape == ()
    for parameter in model.parameters():
        assert parameter.grad.device.type == "meta"
        assert parameter.ndim != 2 or orthogonal(parameter.grad[None])[0].shape == parameter.shape


def test_bfloat16_learns_nearly_the_same_with_weights_in_float32():
    model, plain = fresh(), fresh()
    half, full = losses(train(model, batch, HALF)), losses(train(plain, batch, RUN))
    assert half != full and half == pytest.approx(full, rel=2e-2)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_run_in_bfloat16_goes_on_to_the_bit(tmp_path):
    path, whole = tmp_path / "run.pt", fresh()
    train(whole, batch, HALF)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), batch, HALF, checkpoint=path, every=3, on_step=stop_at_four)
    again = fresh()
    train(again, batch, HALF, checkpoint=path, every=3)
    assert equal(again, whole)
    with pytest.raises(ValueError, match="recipe"):
        train(fresh(), batch, RUN, checkpoint=path)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@cuda
@pytest.mark.parametrize("run", [RUN, HALF, replace(HALF, compile=True)])
def test_a_gpu_learns_what_the_cpu_does(run):
    there, here = fresh().to(device_of("cuda")), fresh()
    found = losses(train(there, batch, run))
    assert next(there.parameters()).is_cuda
    assert found == pytest.approx(losses(train(here, batch, RUN)), rel=2e-2)


@cuda
@pytest.mark.parametrize("places", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_another_device(tmp_path, places):
    begun, path, straight = fresh().to(places[0]), tmp_path / "run.pt", fresh()
    whole = losses(train(straight, batch, RUN))
    with pytest.raises(KeyboardInterrupt):
        train(begun, batch, RUN, checkpoint=path, every=3, on_step=stop_at_four)
    again = fresh().to(places[1])
    rows = train(again, batch, RUN, checkpoint=path, every=3)
    assert losses(rows) == pytest.approx(whole, rel=1e-3)
    assert next(again.parameters()).device.type == places[1]


@cuda
@pytest.mark.skipif(
    "CUBLAS_WORKSPACE_CONFIG" not in os.environ,
    reason="CUBLAS_WORKSPACE_CONFIG=:4096:8 is not set, without which cuBLAS is not deterministic",
)
@pytest.mark.parametrize("run", [RUN, HALF])
def test_a_run_on_a_gpu_goes_on_to_the_bit_where_that_is_asked_for(tmp_path, run):
    path, models = tmp_path / "run.pt", [fresh().cuda() for _ in range(3)]
    torch.use_deterministic_algorithms(True)
    try:
        train(models[0], batch, run)
        with pytest.raises(KeyboardInterrupt):
            train(models[1], batch, run, checkpoint=path, every=3, on_step=stop_at_four)
        train(models[2], batch, run, checkpoint=path, every=3)
    finally:
        torch.use_deterministic_algorithms(False)
    assert equal(models[0], models[2])


@cuda
def test_a_batch_that_a_gpu_does_not_hold_is_computed_in_parts():
    """All that is allowed is two thirds of what the whole batch takes."""
    wide = replace(CFG, vocab_size=4096, context=128)
    run = replace(RUN, steps=3, batch_size=64, window=128)
    ids = torch.randint(0, 4096, (64, 129), generator=torch.Generator().manual_seed(0))
    models = [initialize(Transformer(wide), "scaled", 0).cuda() for _ in range(2)]
    torch.cuda.reset_peak_memory_stats()
    whole = train(models[0], lambda step: ids, run)
    peak, there = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 / 3 * peak / there)
    try:
        parts = train(models[1], lambda step: ids, run)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert parts[0]["micro_batch"] in (16, 32) and "micro_batch" not in parts[2]
