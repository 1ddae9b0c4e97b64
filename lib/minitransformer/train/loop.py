"""The training loop: resumable to the bit, logged, and stopped before the first step that is not
finite."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..affine import ScaleOverflow
from ..fields import whole
from . import resume
from .backward import Backward
from .compiled import compiled
from .finite import NonFiniteError, gradients, non_finite, state
from .log import row_of
from .ranks import Alone
from .recipe import TrainConfig, average, learning_rate, optimizer


def train(
    model,
    batch: Callable[[int], torch.Tensor],
    cfg: TrainConfig,
    *,
    teacher=None,
    checkpoint: Path | None = None,
    every: int = 200,
    on_step: Callable[[dict], dict | None] | None = None,
    ranks: Alone | None = None,
) -> list[dict]:
    """Train `model` in place and return one row a step: step (from 1), tokens, loss (nats), lr,
    gradient norm, seconds.

    `batch(step)`, step from 0, gives LongTensors (B, window + 1), on any device, and must be a pure
    function of the step: then a run resumed from `checkpoint` (written every `every` steps and at
    the end, atomically) equals one that was never stopped, wherever that was. What `on_step`
    returns is added to the row as plain values, and so survives an interruption with it. A
    checkpoint begun with another configuration, initial weights, recipe, batches, teacher, library
    code or torch is refused with ValueError.

    The target is the next token of the batch or, with a `teacher` (a model of the same vocabulary,
    left as it is), the distribution that it gives there (distillation: Hinton et al. 2015): the
    gradient is then without the noise of the draw, and zero where the two agree.

    No step is taken on a loss or gradient that is not finite, and none is kept that left a weight
    or the optimizer's state so: NonFiniteError names it, and every checkpoint is finite. ValueError
    for a model, teacher or batch that cannot be trained on; OSError when a checkpoint cannot be
    written.

    On a GPU that runs out of memory a batch is computed in parts, see `Backward`: the row of the
    step where that begins says of how many rows, `micro_batch`. Equal to the bit is a resumed run
    on a GPU only under `torch.use_deterministic_algorithms(True)`. MemoryError where no part is
    small enough.

    `ranks` are the processes that share the run, by default this one alone: see `distributed`.
    Every one of them returns the rows and calls `on_step`."""
    every, ranks = whole("every", every), ranks or Alone()
    ranks.check(model, cfg)
    _trainable(model, teacher)
    rows, owner, path = [], {}, None if checkpoint is None else Path(checkpoint)
    there = path is not None and path.exists()
    if path is not None or ranks.size > 1:
        owner = resume.identity(model, cfg, lambda step: _ids(batch(step), step, model), teacher)
    ranks.same(owner | {"checkpoint": str(there)})
    net = ranks.wrap(model)  # what is called; the weights are the model's
    opt = optimizer(model, cfg)
    if there:
        rows, owner = resume.read(path, model, opt, owner, ranks)
    net.train()
    backward = Backward(compiled(net) if cfg.compile else net, model, cfg, teacher, ranks)
    backward.rows = next((r["micro_batch"] for r in reversed(rows) if "micro_batch" in r), None)
    for step in range(len(rows), cfg.steps):
        began, ids = time.perf_counter(), _ids(batch(step), step, model)
        seen = (rows[-1]["tokens"] if rows else 0) + ids[:, 1:].numel()
        last = step + 1 == cfg.steps
        due = path is not None and (last or (step + 1) % every == 0)
        try:
            row = {"step": step + 1, "tokens": seen}
            row |= _update(backward, opt, ids, step)
            row["seconds"] = time.perf_counter() - began
            rows.append(row | row_of(on_step(dict(row)) if on_step else None))
            if due or last:
                # on_step, too, may have written to them
                _finite(ranks.agreed(non_finite(state(model, opt))))
        except (NonFiniteError, ScaleOverflow) as error:
            raise NonFiniteError(f"step {step + 1}: {error}: {_advice(cfg, path)}") from None
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise MemoryError(f"step {step + 1}: {error}") from None
        if due:
            resume.write(path, model, opt, owner, rows, ranks)
    net.eval()
    return rows


def _advice(cfg, path):
    kept = path is not None and path.exists()
    good = f"the last finite checkpoint is {path}" if kept else "no checkpoint was written yet"
    return f"lower lr {cfg.lr:g}, or start from other weights; {good}"


def _trainable(model, teacher):
    """ValueError for what no step could be taken with."""
    if teacher is not None and teacher.cfg.vocab_size != model.cfg.vocab_size:
        raise ValueError(
            f"the teacher knows {teacher.cfg.vocab_size} tokens, the model {model.cfg.vocab_size}: "
            "give a teacher of the same vocabulary"
        )
    if half := next((n for n, p in model.named_parameters() if p.dtype == torch.float16), None):
        raise ValueError(
            f"{half} is float16, whose range training leaves: "
            "train in float32 or bfloat16, and convert afterwards"
        )
    for who, net in (("the model", model), ("the teacher", teacher)):
        if net is not None and (name := non_finite(dict(net.named_parameters()))):
            raise ValueError(
                f"{name} of {who} is not finite before the first step: "
                "initialise it again, or load the last good checkpoint"
            )


def _ids(ids, step, model):
    """The batch of a step, or ValueError saying what is no (B, window + 1) of token ids in it."""
    if not torch.is_tensor(ids) or ids.is_floating_point() or ids.is_complex():
        kind = ids.dtype if torch.is_tensor(ids) else type(ids).__name__
        raise ValueError(f"batch({step}) is {kind}: give a LongTensor (B, window + 1) of token ids")
    if ids.ndim != 2 or ids.shape[0] < 1 or ids.shape[1] < 2:
        raise ValueError(
            f"batch({step}) has shape {tuple(ids.shape)}: "
            "give (B, window + 1), inputs and, one place on, targets"
        )
    low, high, size = int(ids.min()), int(ids.max()), model.cfg.vocab_size
    if low < 0 or high >= size:
        raise ValueError(
            f"batch({step}) has ids from {low} to {high}, and the model knows 0 to {size - 1}: "
            "encode the text with the model's tokenizer"
        )
    return ids.long()


def _update(backward, opt, ids, step):
    """One optimizer step on (B, window + 1) ids, taken only when loss and gradient are finite;
    NonFiniteError names what is not, after the step too. Loss and gradient are those of all rows,
    of which each process has some."""
    model, cfg, ranks, before = backward.model, backward.cfg, backward.ranks, backward.rows
    lr = learning_rate(step, cfg)
    for group in opt.param_groups:
        group["lr"] = lr
    opt.zero_grad(set_to_none=True)
    loss_nats = ranks.mean(backward(ids)).item()
    _finite(None if math.isfinite(loss_nats) else f"the loss {loss_nats}")
    slopes = gradients(model)
    norm = ranks.gathered(get_total_norm(slopes.values()))
    if not torch.isfinite(norm):  # before clipping, which would spread it to every parameter
        _finite(non_finite(slopes) or "the norm of the gradient")
    clip_grads_with_norm_(model.parameters(), cfg.clip, norm)
    opt.step()
    if cfg.ema:
        average(opt, cfg.ema, last=step + 1 == cfg.steps)
    _finite(ranks.agreed(non_finite(state(model, opt))))
    row = {"loss_nats": loss_nats, "lr": lr, "gradient_norm": norm.item()}
    return row if backward.rows == before else row | {"micro_batch": backward.rows}


def _finite(fault: str | None):
    if fault:
        raise NonFiniteError(f"{fault} is not finite")
