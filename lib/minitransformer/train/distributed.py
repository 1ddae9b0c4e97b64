"""One run shared by several processes: data parallel, with the model whole in each (DDP, Li et al.
2020) or in parts (FSDP2, Zhao et al. 2023).

`torchrun` starts the processes, on one machine or many; `group` joins them, over NCCL where there
is a GPU for each, else over gloo. The loop is `train`'s own: `ranks` says what of it is shared.

    with group("ddp") as ranks:
        train(model.to(ranks.device), batch, cfg, ranks=ranks, checkpoint=path)

Every process is given the same model, recipe and `batch`, and takes the rows rank, rank + size,
rank + 2·size … of each batch, so what it reads is a pure function of (seed, step, rank), and the
global batch that of one process. The gradient is the mean over all tokens of the global batch, also
where the rows do not divide evenly. It is summed in another order than one process would, so losses
equal those of one process to rounding: within `TOLERANCE` nats over the first steps, after which
rounding grows as it does between machines. On the same number of processes a run that was killed
and started again from its checkpoint has the losses of one that never was (of two processes to the
bit: a sum of two has no order).

The checkpoint is the one file of `train`, written by rank 0, and holds whole tensors: any number of
processes, one included, may go on with it. All processes must see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ..fields import choice
from ..model import Transformer
from .ranks import Alone

TOLERANCE = 1e-5  # nats
PATIENCE = timedelta(minutes=10)  # before a process that hears nothing of the others gives up


class DataParallel(Alone):
    """The whole model in each process; gradients are averaged while the backward pass runs."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def check(self, model, cfg):
        if cfg.batch_size < self.size:
            raise ValueError(
                f"batch_size {cfg.batch_size} is less than the {self.size} processes: "
                f"give at least {self.size}, or start fewer"
            )

    def same(self, about):
        every = [None] * self.size
        dist.all_gather_object(every, about)
        for rank, other in enumerate(every):
            if differ := [name for name in every[0] if other.get(name) != every[0][name]]:
                raise ValueError(
                    f"process {rank} has another {' and another '.join(differ)} than process 0: "
                    "give all of them the same, and a folder that all of them see"
                )

    def wrap(self, model):
        return DistributedDataParallel(model)

    def share(self, ids):
        rows = ids[self.rank :: self.size]
        if not len(rows):
            raise ValueError(
                f"a batch of {len(ids)} rows leaves none to process {self.rank} of {self.size}: "
                "give a larger batch, or start fewer processes"
            )
        return rows

    def mean(self, value):
        value = value.clone()
        dist.all_reduce(value)
        return value / self.size

    def agreed(self, fault):
        found = torch.tensor(float(fault is not None), device=self.device)
        dist.all_reduce(found)
        return fault or ("a number of another process" if found else None)


class Sharded(DataParallel):
    """A part of each parameter, gradient and moment in each process: a block's are brought together
    while it is computed.

    `train` leaves the model in parts; `whole` gives it back."""

    def check(self, model, cfg):
        super().check(model, cfg)
        if cfg.optimizer == "muon":
            raise ValueError(
                "muon moves whole matrices, and fsdp leaves each process a part of them: "
                "choose ddp, or optimizer adamw"
            )
        if cfg.compile:
            raise ValueError(
                "fsdp brings a block's parts together between what could be compiled: "
                "choose ddp, or compile False"
            )
        if isinstance(model, FSDPModule):
            raise ValueError("the model is in parts already: give a whole one, as `whole` returns")
        if not isinstance(model, Transformer) or hasattr(model, "scheme"):
            raise ValueError(
                f"{type(model).__name__} with quantized layers cannot be trained in parts: "
                "choose ddp, which keeps it whole in each process"
            )

    def wrap(self, model):
        mesh = init_device_mesh(self.device.type, (self.size,))  # not on a GPU that only one has
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "hidden")  # it, too, needs the parameters whole
        return model

    def gathered(self, tensor):
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def scattered(self, tensor, like):
        if not isinstance(like, DTensor) or tensor.shape != like.shape:
            return tensor
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


KINDS = {"ddp": DataParallel, "fsdp": Sharded}


@contextmanager
def group(kind: str = "ddp") -> Iterator[Alone]:
    """This process among those that `torchrun` started, "ddp" or "fsdp"; alone where it did not
    start it. ValueError for another word."""
    choice("parallel", kind, KINDS)
    if not dist.is_torchelastic_launched():
        yield Alone("cuda" if torch.cuda.is_available() else "cpu")
        return
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", None, PATIENCE)
    try:
        yield KINDS[kind](own_device())
    finally:
        dist.destroy_process_group()


def own_device() -> torch.device:
    """The GPU of this process's number on its machine, if there is one for each process; else the
    CPU. Asked by all processes of a group together."""
    place, there = dist.get_node_local_rank(0), [None] * dist.get_world_size()
    dist.all_gather_object(there, place < torch.cuda.device_count())
    if not all(there):
        return torch.device("cpu")
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def whole(model: Transformer) -> Transformer:
    """A trained model as one process has it, on the CPU; one that is whole already is returned as
    it is. Called by all processes."""
    if not isinstance(model, FSDPModule):
        return model
    state = {name: value.full_tensor().cpu() for name, value in model.state_dict().items()}
    full = Transformer(model.cfg)
    full.load_state_dict(state)
    return full.eval()
