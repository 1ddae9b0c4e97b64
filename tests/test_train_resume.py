"""A checkpoint goes on with the same run to the bit, wherever it stopped, with no other run, and
stays readable whatever was logged."""

import datetime
import io
import os
import pickle
import signal
import zipfile
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from minitransformer.model import Transformer
from minitransformer.quant import QuantScheme
from minitransformer.train import (
    TrainConfig,
    initialize,
    loop,
    optimizer,
    prepare_qat,
    resume,
    train,
)
from minitransformer.train.log import plain
from training import CFG, RUN, batch, equal, fresh, little_room, losses

PLACES = range(1, RUN.steps + 1)


def stop():
    raise KeyboardInterrupt


def in_on_step(step, monkeypatch):
    return {"on_step": lambda row: stop() if row["step"] == step else None}


def in_the_batch(step, monkeypatch):
    return {"batch": lambda s: stop() if s == step - 1 else batch(s)}


def in_the_optimizer(step, monkeypatch):
    """Half of the parameters have moved."""
    taken = 0

    def hooked(model, cfg):
        opt = optimizer(model, cfg)
        plain_step = opt.step

        def half_step():
            nonlocal taken
            taken += 1
            if taken == step:
                for group in opt.param_groups:
                    for p in group["params"][::2]:
                        p.data.add_(1)
                stop()
            plain_step()

        opt.step = half_step
        return opt

    monkeypatch.setattr(loop, "optimizer", hooked)
    return {}


def in_the_write(step, monkeypatch):
    """Half of the bytes are on the disk."""
    written, whole = 0, torch.save

    def half(state, path):
        nonlocal written
        written += 1
        whole(state, path)
        if written == (step + 1) // 2:
            data = Path(path).read_bytes()
            Path(path).write_bytes(data[: len(data) // 2])
            stop()

    monkeypatch.setattr(torch, "save", half)
    return {}


@pytest.mark.parametrize("step", PLACES)
@pytest.mark.parametrize("where", [in_on_step, in_the_batch, in_the_optimizer, in_the_write])
def test_an_interrupt_anywhere_is_resumed_to_the_bit(tmp_path, monkeypatch, where, step):
    straight, path = fresh(), tmp_path / "run.pt"
    whole = train(straight, batch, RUN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        options = {"batch": batch} | where(step, patch)
        # the identity asks for batches too: it must not meet the interrupt
        patch.setattr(resume, "identity", lambda *a, own=resume.identity: own(a[0], a[1], batch))
        train(fresh(), cfg=RUN, checkpoint=path, every=2, **options)
    assert not list(tmp_path.glob("*.part"))
    resumed = fresh()
    rows = train(resumed, batch, RUN, checkpoint=path, every=2)
    assert losses(rows) == losses(whole) and equal(resumed, straight)
    assert [row["tokens"] for row in rows] == [16 * s for s in PLACES]


def until_killed(path, where, step):
    """For a process of its own: goes on from the checkpoint, and is killed at such a place."""
    global stop
    stop, patch = partial(os.kill, os.getpid(), signal.SIGKILL), pytest.MonkeyPatch()
    torch.set_num_threads(1)
    options = {"batch": batch} | where(step, patch)
    patch.setattr(resume, "identity", lambda *a, own=resume.identity: own(a[0], a[1], batch))
    train(fresh(), cfg=RUN, checkpoint=path, every=1, **options)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no process can be killed so here")
def test_a_run_that_is_killed_again_and_again_equals_one_that_never_was(tmp_path, forking):
    """Twice at every step: where nothing of it is kept, in the middle of it or of its checkpoint,
    and where it just was."""
    straight, path, kept = fresh(), tmp_path / "run.pt", 0
    whole = train(straight, batch, RUN)
    within = [(in_the_optimizer, 1), (in_the_write, 1), (in_on_step, None)]
    for step in PLACES[:-1]:
        where, at = within[step % 3]
        for place in ((where, at or step), (in_the_batch, step + 1)):
            process = forking.Process(target=until_killed, args=(path, *place))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            found = len(torch.load(path, weights_only=True)["rows"]) if path.exists() else 0
            assert found == kept + (where is not place[0])
        kept += 1
    resumed = fresh()
    rows = train(resumed, batch, RUN, checkpoint=path, every=1)
    assert losses(rows) == losses(whole) and equal(resumed, straight)
    assert [part.name for part in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_mean_of_the_weights_is_what_a_run_leaves_and_is_resumed_to_the_bit(tmp_path, kind):
    cfg, mean = replace(RUN, ema=0.7, optimizer=kind), None
    bare, straight, seen = fresh(), fresh(), []

    def follow(row):
        nonlocal mean
        now = [p.detach().clone() for p in bare.parameters()]
        mean = now if mean is None else [0.7 * m + 0.3 * p for m, p in zip(mean, now, strict=True)]

    train(bare, batch, replace(cfg, ema=0.0), on_step=follow)
    whole = train(
        straight, batch, cfg, on_step=lambda row: seen.append(straight.head.weight.clone())
    )
    for p, own in zip(straight.parameters(), mean, strict=True):
        torch.testing.assert_close(p.detach(), own)
    assert torch.equal(seen[-1], straight.head.weight)  # the last look is at what is left
    for stop_at in (1, 4, 6, 7):
        path, resumed = tmp_path / f"{stop_at}.pt", fresh()
        with pytest.raises(KeyboardInterrupt):
            look = {"on_step": lambda row, s=stop_at: stop() if row["step"] == s else None}
            train(fresh(), batch, cfg, checkpoint=path, every=1, **look)
        rows = train(resumed, batch, cfg, checkpoint=path, every=1)
        assert losses(rows) == losses(whole) and equal(resumed, straight)
    for again in (fresh(), resumed):  # a finished run, called again
        train(again, batch, cfg, checkpoint=path)
        assert equal(again, straight)


def begun(tmp_path, **changes):
    path = tmp_path / "run.pt"
    options = {"model": fresh(), "batch": batch, "cfg": RUN} | changes
    with pytest.raises(KeyboardInterrupt):
        train(
            **options,
            checkpoint=path,
            every=2,
            on_step=lambda r: stop() if r["step"] == 5 else None,
        )
    return path


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": fresh(1)}, "initial weights"),
        ({"model": fresh().double()}, "initial weights"),
        ({"cfg": replace(RUN, lr=2e-2)}, "recipe"),
        ({"cfg": replace(RUN, steps=8)}, "recipe and batches"),
        ({"batch": lambda step: batch(step + (step == 3))}, "batches"),
        ({"teacher": fresh(2)}, "teacher"),
        (
            {"model": initialize(Transformer(replace(CFG, ffn="gelu")), "scaled", 0)},
            "configuration",
        ),
        ({"model": prepare_qat(fresh(), QuantScheme(4))}, "configuration and initial weights"),
    ],
)
def test_another_run_is_refused_by_what_differs(tmp_path, changes, what):
    path = begun(tmp_path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"run\.pt belongs to another run, with other {what}.*delete"
    ):
        train(**{"model": fresh(), "batch": batch, "cfg": RUN} | changes, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["model.py", "train/loop.py", "train/recipe.py", "quant/layers.py"]
)
def test_edited_code_is_another_run(tmp_path, monkeypatch, name):
    """Files of quantization count where a model is quantized."""
    grown = prepare_qat if name.startswith("quant") else lambda model, scheme: model
    path = begun(tmp_path, model=grown(fresh(), QuantScheme(4)))
    copy = tmp_path / "library"
    for source in (*resume.LIBRARY.glob("*.py"), *resume.LIBRARY.glob("[tq]*/*.py")):
        edited = copy / source.relative_to(resume.LIBRARY)
        edited.parent.mkdir(parents=True, exist_ok=True)
        edited.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))  # a checkout on Windows
    monkeypatch.setattr(resume, "LIBRARY", copy)
    again = tmp_path / "again.pt"
    again.write_bytes(path.read_bytes())
    train(grown(fresh(), QuantScheme(4)), batch, RUN, checkpoint=again)
    with open(copy / name, "a") as file:
        file.write("\nx = 1\n")
    with pytest.raises(ValueError, match="with other library code: delete it, or give another"):
        train(grown(fresh(), QuantScheme(4)), batch, RUN, checkpoint=path)


def test_another_torch_is_another_run(tmp_path, monkeypatch):
    path = begun(tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    with pytest.raises(ValueError, match="with other torch version"):
        train(fresh(), batch, RUN, checkpoint=path)


def test_a_finished_run_called_again_with_its_own_model_is_finished(tmp_path):
    model, path = fresh(), tmp_path / "run.pt"
    rows = train(model, batch, RUN, checkpoint=path)
    assert train(model, batch, RUN, checkpoint=path) == rows
    assert train(fresh(), batch, RUN, checkpoint=path) == rows


LOGGED = {
    "np.float64": (np.float64(0.5), 0.5),
    "np.float32": (np.float32(0.25), 0.25),
    "np.int64": (np.int64(3), 3),
    "np.bool": (np.bool_(True), True),
    "np.str": (np.str_("a"), "a"),
    "array": (np.arange(3.0), [0.0, 1.0, 2.0]),
    "0-d": (np.array(2.5), 2.5),
    "tensor": (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
    "tensors": (torch.ones(2, requires_grad=True), [1.0, 1.0]),
    "nested": ({"a": (np.float64(1), [torch.tensor(2)])}, {"a": [1.0, [2]]}),
    "ordered": (OrderedDict(b=1), {"b": 1}),
    "version": (torch.torch_version.TorchVersion("2.13.0"), "2.13.0"),
    "huge": (2**100, 2**100),
    "none": (None, None),
}


@pytest.mark.parametrize("name", LOGGED)
def test_whatever_number_is_logged_the_checkpoint_stays_readable(tmp_path, name):
    given, kept = LOGGED[name]
    path = tmp_path / "run.pt"
    rows = train(fresh(), batch, RUN, checkpoint=path, on_step=lambda row: {"x": given})
    assert rows[0]["x"] == kept and type(rows[0]["x"]) is type(kept)
    assert train(fresh(), batch, RUN, checkpoint=path) == rows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (datetime.date(2024, 1, 2), "a log cannot keep"),
        (np.datetime64("2024-01-02"), "a log cannot keep"),
        (Path("x"), "a log cannot keep"),
        (1j, "a log cannot keep"),
        (object, "a log cannot keep"),
        ({1, 2}, "a log cannot keep"),
        (b"bytes", "a log cannot keep"),
        ({3: 4}, "has the key 3: give text"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_the_moment_it_is_given(tmp_path, given, message):
    with pytest.raises(ValueError, match=rf"on_step's row\['x'\].* {message}"):
        train(fresh(), batch, RUN, on_step=lambda row: {"x": given})
    with pytest.raises(ValueError, match="on_step returned 5: give a dict"):
        train(fresh(), batch, RUN, on_step=lambda row: 5)


def test_a_log_is_not_changed_by_its_reader():
    def meddle(row):
        row["loss_nats"] = np.float64(0)

    assert losses(train(fresh(), batch, RUN, on_step=meddle)) == losses(train(fresh(), batch, RUN))
    assert plain("x", [1, 2.0, "a", True, None]) == [1, 2.0, "a", True, None]


def relocated(path, device):
    """The checkpoint as a machine with that device would have written it."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    name = next(n for n in parts if n.endswith("data.pkl"))
    tag = b"X" + len(device).to_bytes(4, "little") + device
    assert b"X\x03\0\0\0cpu" in parts[name]
    parts[name] = parts[name].replace(b"X\x03\0\0\0cpu", tag)
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            new.writestr(name, data)


@pytest.mark.parametrize("device", [b"cuda:0", b"mps", b"cuda:7"])
def test_a_checkpoint_from_another_device_goes_on_here(tmp_path, device):
    straight, path = fresh(), begun(tmp_path)
    train(straight, batch, RUN)
    relocated(path, device)
    resumed = fresh()
    train(resumed, batch, RUN, checkpoint=path)
    assert equal(resumed, straight)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, capsys):
    path = tmp_path / "run.pt"
    torch.save({"identity": Payload()}, path)
    with pytest.raises(ValueError, match="holds more than tensors and plain values, so train"):
        train(fresh(), batch, RUN, checkpoint=path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="is not a whole training checkpoint"):
        train(fresh(), batch, RUN, checkpoint=path)
    torch.save({"identity": "0" * 64, "model": {}, "optimizer": {}, "rows": []}, path)
    with pytest.raises(ValueError, match="was written by another program or version: delete it"):
        train(fresh(), batch, RUN, checkpoint=path)
    with pytest.raises(ValueError, match="is a folder: give a file's name"):
        train(fresh(), batch, RUN, checkpoint=tmp_path)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_holding_a_nan_is_refused(tmp_path):
    path = begun(tmp_path)
    state = torch.load(path, weights_only=True)
    state["model"]["head.bias"][0] = float("nan")
    torch.save(state, path)
    with pytest.raises(ValueError, match="holds a head.bias that is not finite: delete it"):
        train(fresh(), batch, RUN, checkpoint=path)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    path = begun(tmp_path)
    before = path.read_bytes()
    with little_room(len(before) // 2), pytest.raises(OSError) as caught:
        train(fresh(), batch, RUN, checkpoint=path)
    message = str(caught.value)
    assert message.startswith(f"cannot write {path} (") and "what was there is whole" in message
    assert "\n" not in message
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    train(fresh(), batch, RUN, checkpoint=path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1, 2]], "batch.0. is list: give a LongTensor"),
        (torch.ones(2, 9), "batch.0. is torch.float32: give a LongTensor"),
        (torch.ones(9, dtype=torch.long), r"batch.0. has shape \(9,\)"),
        (torch.ones(2, 1, dtype=torch.long), r"batch.0. has shape \(2, 1\)"),
        (torch.full((2, 9), 23), "has ids from 23 to 23, and the model knows 0 to 22"),
        (torch.full((2, 9), -1), "has ids from -1 to -1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("checkpoint", ["run.pt", None])
def test_a_batch_that_is_none_is_named(tmp_path, given, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        path = checkpoint and tmp_path / checkpoint
        train(fresh(), lambda step: given, RUN, checkpoint=path)


def test_batches_of_other_integer_types_train_alike():
    rows = train(fresh(), lambda step: batch(step).int(), RUN)
    assert losses(rows) == losses(train(fresh(), batch, RUN))


def test_identity_is_json_and_io_free_of_torchs_own_types(tmp_path):
    own = resume.identity(fresh(), TrainConfig(steps=1), batch)
    assert {type(value) for value in own.values()} == {str}
    torch.save(own, buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == own
