"""Loss and gradient of a batch: of all its rows at once or, where a GPU's memory does not hold what
that takes, of some after others, which add up to the same."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .loss import cross_entropy_
from .ranks import Alone
from .recipe import PRECISIONS, TrainConfig


@dataclass
class Backward:
    """Called with ids (B, window + 1) of a step: adds the gradient of their mean loss to the
    model's parameters and returns that loss, a scalar; of several processes each has its share.

    A GPU that runs out of memory on `rows` rows (None: all of this process) is given half as many
    at a time, from then on; the sums differ by rounding alone. MemoryError where one row does not
    fit, or where processes share the run, whose sums would no longer be of the same rows."""

    call: Callable[[torch.Tensor], torch.Tensor]  # ids (B, T) -> logits, of the model
    model: nn.Module
    cfg: TrainConfig
    teacher: nn.Module | None
    ranks: Alone
    rows: int | None = None

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        device = next(self.model.parameters()).device
        own = self.ranks.share(ids).to(device)
        whole = len(ids) / self.ranks.size  # rows; a mean over processes makes it all of them
        while True:
            at_once = min(self.rows or len(own), len(own))
            try:
                return sum(self.part(rows, len(rows) / whole) for rows in own.split(at_once))
            except torch.OutOfMemoryError:
                pass  # only once this block is over is what the failed rows held let go
            self.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            if at_once == 1 or self.ranks.size > 1:
                raise MemoryError(self.too_large(at_once, ids.shape[1] - 1, device))
            self.rows = (at_once + 1) // 2

    def part(self, ids: torch.Tensor, share: float) -> torch.Tensor:
        """The same for some rows, whose loss counts for `share`."""
        half, kind = self.cfg.precision != "float32", PRECISIONS[self.cfg.precision]
        with torch.autocast(ids.device.type, kind) if half else nullcontext():
            logits = self.call(ids[:, :-1])
        logits = logits.float().flatten(0, 1) if half else logits.flatten(0, 1)
        targets = self.targets(ids, logits)
        if self.teacher is None:
            slope = logits.data  # of which autograd need not know that it is written to
            loss = cross_entropy_(slope, targets, share / len(targets))
            logits.backward(slope)
        else:
            loss = F.cross_entropy(logits, targets) * share
            loss.backward()
        return loss.detach()

    @torch.no_grad()
    def targets(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What is to be predicted: the next ids (B·T,), or the teacher's distributions of them
        (B·T, V)."""
        if self.teacher is None:
            return ids[:, 1:].flatten()
        device = next(self.teacher.parameters()).device
        return self.teacher(ids[:, :-1].to(device)).flatten(0, 1).softmax(-1).to(logits)

    def too_large(self, rows: int, window: int, device: torch.device) -> str:
        what = f"{rows} rows" if rows > 1 else "a row"
        remedy = "a smaller batch_size, or more processes" if rows > 1 else "a smaller model"
        return (
            f"the memory of {device} does not hold {what} of {window} tokens: give a shorter "
            f"window, or {remedy}"
        )
