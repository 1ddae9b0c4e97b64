"""Several processes train the model that one would: whole in each or in parts, killed and started
again, from and to the same checkpoint."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from minitransformer.quant import QuantScheme
from minitransformer.train import prepare_qat, train
from minitransformer.train.distributed import (
    TOLERANCE,
    DataParallel,
    Sharded,
    group,
    own_device,
    whole,
)
from minitransformer.train.ranks import Alone
from several_processes import SHARED, fresh, rows_of_five
from training import equal, losses

KINDS = {"ddp": DataParallel, "fsdp": Sharded}


def launched(folder, what, *kinds, processes=2):
    """Processes of tests/several_processes.py, from `torchrun`, in `folder`; its status."""
    script = Path(__file__).parent / "several_processes.py"
    options = ["--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, script, folder, what]
    done = subprocess.run([*command, *kinds], capture_output=True, text=True, timeout=240)
    print(done.stderr)
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    assert launched(folder, "stay", *KINDS) == 0
    return folder


def found(folder, kind, rank=0):
    return json.loads((folder / f"{kind}-{rank}.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one_at_equal_global_batch(undisturbed, kind):
    model = fresh()
    alone, rows = train(model, rows_of_five, SHARED), found(undisturbed, kind)
    assert losses(rows) == pytest.approx(losses(alone), abs=TOLERANCE, rel=0)
    norms = [[row["gradient_norm"] for row in each] for each in (rows, alone)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in alone]
    assert losses(found(undisturbed, kind, 1)) == losses(rows)
    first, second = (torch.load(undisturbed / f"{kind}-{rank}.model") for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_their_checkpoint_is_that_of_one_process(undisturbed, kind):
    model, path = fresh(), undisturbed / f"{kind}.pt"
    rows = train(model, rows_of_five, SHARED, checkpoint=path)
    assert rows == found(undisturbed, kind)  # finished: no step was taken
    kept = torch.load(undisturbed / f"{kind}-0.model")
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert not list(undisturbed.glob("*.part"))


def test_after_a_killed_process_the_same_command_goes_on_with_the_same_losses(
    undisturbed, tmp_path
):
    assert launched(tmp_path, "kill", "fsdp") != 0
    kept = torch.load(tmp_path / "fsdp.pt")["rows"]
    assert [row["step"] for row in kept] == [1, 2, 3, 4] and not list(tmp_path.glob("*.json"))
    assert launched(tmp_path, "kill", "fsdp") == 0
    assert found(tmp_path, "fsdp")[:4] == kept
    assert losses(found(tmp_path, "fsdp")) == losses(found(undisturbed, "fsdp"))
    first, second = (torch.load(f / "fsdp-0.model") for f in (tmp_path, undisturbed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@contextmanager
def one_of(kind, tmp_path):
    """A group of this process only, over gloo."""
    dist.init_process_group("gloo", f"file://{tmp_path}/{kind}.rendezvous", rank=0, world_size=1)
    try:
        yield KINDS[kind]()
    finally:
        dist.destroy_process_group()


def stop_at_five(row):
    if row["step"] == 5:
        raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_shared_run_goes_on_to_the_bit(tmp_path, kind):
    with one_of(kind, tmp_path) as ranks:
        straight, path = fresh(), tmp_path / "run.pt"
        rows = train(straight, rows_of_five, SHARED, ranks=ranks)
        options = {"checkpoint": path, "every": 2, "ranks": ranks}
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), rows_of_five, SHARED, on_step=stop_at_five, **options)
        assert len(torch.load(path)["rows"]) == 4
        resumed = fresh()
        again = train(resumed, rows_of_five, SHARED, **options)
        assert losses(again) == losses(rows) and equal(whole(resumed), whole(straight))
        ids = rows_of_five(0)[:, :-1]
        with torch.no_grad():
            assert torch.equal(resumed.hidden(ids), whole(resumed).hidden(ids))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_row_is_read_by_one_process_and_by_the_same_one_again(size):
    ids, shares = rows_of_five(3), []
    for rank in range(size):
        ranks = DataParallel.__new__(DataParallel)
        ranks.rank, ranks.size = rank, size
        shares.append(ranks.share(ids))
        assert torch.equal(shares[-1], ranks.share(rows_of_five(3)))
    dealt = [row.tolist() for row in torch.cat(shares)]
    assert sorted(dealt) == sorted(ids.tolist())
    ranks.rank, ranks.size = 5, 6
    with pytest.raises(ValueError, match="a batch of 5 rows leaves none to process 5 of 6"):
        ranks.share(ids)


def test_what_cannot_be_shared_is_named(tmp_path):
    with one_of("fsdp", tmp_path) as ranks:
        with pytest.raises(ValueError, match="quantized layers cannot be trained in parts"):
            train(prepare_qat(fresh(), QuantScheme(4)), rows_of_five, SHARED, ranks=ranks)
        with pytest.raises(ValueError, match="fsdp leaves each process a part of them: choose ddp"):
            muon = replace(SHARED, optimizer="muon")
            train(fresh(), rows_of_five, muon, ranks=ranks)
        with pytest.raises(ValueError, match="what could be compiled: choose ddp, or compile"):
            train(fresh(), rows_of_five, replace(SHARED, compile=True), ranks=ranks)
        parted = ranks.wrap(fresh())
        with pytest.raises(ValueError, match="is in parts already: give a whole one"):
            train(parted, rows_of_five, SHARED, ranks=ranks)
        ranks.size = 6
        with pytest.raises(ValueError, match="batch_size 5 is less than the 6 processes"):
            train(fresh(), rows_of_five, SHARED, ranks=ranks)


def test_processes_that_were_given_other_things_are_named(tmp_path, monkeypatch):
    with one_of("ddp", tmp_path) as ranks:
        ranks.size = 2

        def gathered(every, about):
            every[:] = [about, about | {"recipe": "another"}]

        monkeypatch.setattr(dist, "all_gather_object", gathered)
        with pytest.raises(ValueError, match="process 1 has another recipe than process 0"):
            train(fresh(), rows_of_five, SHARED, ranks=ranks)


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_fault_of_one_process_stops_all(tmp_path, where):
    with one_of("ddp", tmp_path) as ranks:
        fault = "x is wrong" if where == "here" else None
        assert ranks.agreed(fault) == fault
        assert ranks.mean(torch.tensor(2.0)) == 2


def test_without_torchrun_a_process_is_alone():
    with group("fsdp") as ranks:
        assert type(ranks) is Alone and ranks.size == 1
    with pytest.raises(ValueError, match="parallel 'mpi' is unknown: choose one of ddp, fsdp"):
        with group("mpi"):
            pass
    model = fresh()
    assert whole(model) is model


def test_a_gpu_is_used_only_where_there_is_one_for_every_process(tmp_path, monkeypatch):
    """One that has a GPU and one that has none would wait for each other for ever."""
    with one_of("ddp", tmp_path):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        assert own_device() == torch.device("cpu")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        chosen = []
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        assert own_device() == torch.device("cuda", 0) and chosen == [0]

        def gathered(every, own):
            every[:] = [own, False]

        monkeypatch.setattr(dist, "all_gather_object", gathered)
        assert own_device() == torch.device("cpu") and chosen == [0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_over_nccl_one_gpu_has_the_losses_of_one_process(tmp_path, kind):
    alone = train(fresh().cuda(), rows_of_five, SHARED)
    assert launched(tmp_path, "stay", kind, processes=1) == 0
    assert losses(found(tmp_path, kind)) == pytest.approx(losses(alone), abs=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs, for NCCL")
@pytest.mark.parametrize("kind", KINDS)
def test_two_gpus_have_the_losses_of_one(tmp_path, kind):
    model = fresh().cuda()
    alone = train(model, rows_of_five, replace(SHARED))
    assert launched(tmp_path, "stay", kind) == 0
    assert losses(found(tmp_path, kind)) == pytest.approx(losses(alone), abs=1e-3)
