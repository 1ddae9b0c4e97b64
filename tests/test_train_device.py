"""Where and in what a model is trained: the device by its name, and bfloat16 beside FP32."""

from dataclasses import replace

import pytest
import torch

from minitransformer.train import device_of, train
from training import RUN, batch, equal, fresh, losses

HALF = replace(RUN, precision="bfloat16")


def have(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_is_the_first_that_there_is(monkeypatch):
    for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        have(monkeypatch, cuda, mps)
        assert device_of() == device_of("auto") == device_of(wanted) == torch.device(wanted)
        assert device_of("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    have(monkeypatch, False, False)
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"^device {name} is not there: give auto, or cpu"):
            device_of(name)
    with pytest.raises(ValueError, match="^device 'cudo' is unknown"):
        device_of("cudo")


def test_bfloat16_learns_nearly_the_same_with_weights_in_float32():
    model, plain = fresh(), fresh()
    half, full = losses(train(model, batch, HALF)), losses(train(plain, batch, RUN))
    assert half != full and half == pytest.approx(full, rel=2e-2)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_run_in_bfloat16_goes_on_to_the_bit(tmp_path):
    path, whole = tmp_path / "run.pt", fresh()
    train(whole, batch, HALF)

    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), batch, HALF, checkpoint=path, every=3, on_step=stop)
    again = fresh()
    train(again, batch, HALF, checkpoint=path, every=3)
    assert equal(again, whole)
    with pytest.raises(ValueError, match="recipe"):
        train(fresh(), batch, RUN, checkpoint=path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("run", [RUN, HALF])
def test_a_gpu_learns_what_the_cpu_does(run):
    there, here = fresh().to(device_of("cuda")), fresh()
    found = losses(train(there, batch, run))
    assert next(there.parameters()).is_cuda
    assert found == pytest.approx(losses(train(here, batch, run)), rel=2e-2)
