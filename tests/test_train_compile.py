"""Training through torch.compile: the losses of eager training but for rounding, a part of what a
run is, and one line where there is no compiler."""

from dataclasses import replace

import pytest
import torch

from minitransformer.train import train
from training import RUN, batch, equal, fresh, losses

COMPILED = replace(RUN, compile=True)
ROUNDING = 1e-5  # nats, over a few steps
FAILS = "torch.compile does not work here"


def test_compiled_losses_are_the_eager_ones_and_a_run_goes_on_to_the_bit(tmp_path):
    straight, path = fresh(), tmp_path / "run.pt"
    try:
        rows = train(straight, batch, COMPILED)
    except RuntimeError as error:
        if not str(error).startswith(FAILS):
            raise
        pytest.skip(str(error))
    assert losses(rows) == pytest.approx(losses(train(fresh(), batch, RUN)), abs=ROUNDING, rel=0)

    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), batch, COMPILED, checkpoint=path, every=3, on_step=stop)
    resumed = fresh()
    again = train(resumed, batch, COMPILED, checkpoint=path, every=3)
    assert losses(again) == losses(rows) and equal(resumed, straight)


def test_how_it_is_computed_belongs_to_the_run(tmp_path):
    train(fresh(), batch, RUN, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="belongs to another run, with other recipe"):
        train(fresh(), batch, COMPILED, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="compile 'yes' is neither True nor False"):
        replace(RUN, compile="yes")


def test_where_nothing_compiles_the_run_ends_in_one_line(monkeypatch):
    def failing(net, **options):
        def call(ids):
            raise torch._dynamo.exc.TorchDynamoException("no working\nC++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(RuntimeError) as caught:
        train(fresh(), batch, COMPILED)
    assert str(caught.value) == (
        f"{FAILS} (TorchDynamoException: no working C++ compiler): "
        "install a C++ compiler, or train with compile False"
    )
