"""The training loop: resumable to the bit, logged, and stopped by the first loss that is not
finite."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F

from ..quant import scheme_to_json
from .recipe import TrainConfig, learning_rate, optimizer


class NonFiniteLoss(RuntimeError):
    """The loss left the finite numbers; the message names the step and the last good checkpoint."""


def train(
    model,
    batch: Callable[[int], torch.Tensor],
    cfg: TrainConfig,
    *,
    teacher=None,
    checkpoint: Path | None = None,
    every: int = 200,
    on_step: Callable[[dict], dict | None] | None = None,
) -> list[dict]:
    """Train `model` in place and return one row a step: step, tokens, loss (nats), lr, gradient
    norm, seconds.

    `batch(step)` gives LongTensors (B, window + 1) and must be a pure function of the step: then a
    run resumed from `checkpoint` (written every `every` steps and at the end, atomically) equals
    one that was never stopped. What `on_step` returns is added to the row, and so survives an
    interruption with it. A checkpoint of another model, recipe, teacher or stream of batches is
    refused with ValueError. The target is the next token of the batch or, with a `teacher` (a model
    of the same vocabulary, left as it is), the distribution that it gives there (distillation:
    Hinton et al. 2015): the gradient is then without the noise of the draw, and zero where the two
    agree. ValueError for a teacher of another vocabulary."""
    if teacher is not None and teacher.cfg.vocab_size != model.cfg.vocab_size:
        raise ValueError(
            f"the teacher knows {teacher.cfg.vocab_size} tokens, the model {model.cfg.vocab_size}: "
            "give a teacher of the same vocabulary"
        )
    opt = optimizer(model, cfg)
    rows, start = [], 0
    owner = identity(model, cfg, batch, teacher) if checkpoint is not None else ""
    if checkpoint is not None and Path(checkpoint).exists():
        rows, start = _resume(Path(checkpoint), model, opt, owner)
    model.train()
    for step in range(start, cfg.steps):
        began = time.perf_counter()
        row = _update(model, opt, batch(step), learning_rate(step, cfg), cfg, teacher)
        if not math.isfinite(row["loss_nats"]):
            written = checkpoint is not None and Path(checkpoint).exists()
            good = (
                f"the last good checkpoint is {checkpoint}"
                if written
                else "no checkpoint was written yet"
            )
            raise NonFiniteLoss(
                f"loss is {row['loss_nats']} at step {step}: lower lr {cfg.lr}; {good}"
            )
        tokens = (step + 1) * cfg.batch_size * cfg.window
        row = {"step": step + 1, "tokens": tokens, **row, "seconds": time.perf_counter() - began}
        rows.append(row | (on_step(row) or {} if on_step else {}))
        if checkpoint is not None and ((step + 1) % every == 0 or step + 1 == cfg.steps):
            _save(Path(checkpoint), model, opt, owner, rows)
    model.eval()
    return rows


def _update(model, opt, batch, lr, cfg, teacher):
    """One optimizer step on (B, window + 1) ids; the weights are left alone when the loss is not
    finite."""
    for group in opt.param_groups:
        group["lr"] = lr
    opt.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), _targets(batch, teacher))
    row = {"loss_nats": loss.item(), "lr": lr, "gradient_norm": math.nan}
    if math.isfinite(row["loss_nats"]):
        loss.backward()
        row["gradient_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip).item()
        opt.step()
    return row


@torch.no_grad()
def _targets(batch, teacher):
    """What is to be predicted: the next ids (B·T,), or the teacher's distributions of them (B·T,
    V)."""
    return (
        batch[:, 1:].flatten()
        if teacher is None
        else teacher(batch[:, :-1]).flatten(0, 1).softmax(-1)
    )


def identity(model, cfg: TrainConfig, batch, teacher=None) -> str:
    """SHA-256 of what a checkpoint belongs to: configuration of model and run, first and last
    batch, any scheme and teacher."""
    parts = [asdict(model.cfg), asdict(cfg), [batch(step).tolist() for step in (0, cfg.steps - 1)]]
    parts += [scheme_to_json(model.scheme)] if hasattr(model, "scheme") else []
    parts += [_fingerprint(teacher)] if teacher is not None else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(model) -> str:
    """SHA-256 of a model's configuration and of every tensor in it."""
    digest = hashlib.sha256(json.dumps(asdict(model.cfg), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(
            name.encode()
            + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _save(path, model, opt, owner, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    state = {
        "identity": owner,
        "model": model.state_dict(),
        "optimizer": opt.state_dict(),
        "rows": rows,
    }
    torch.save(state, part)
    os.replace(part, path)


def _resume(path, model, opt, owner):
    try:
        state = torch.load(path, weights_only=True)
        found = state["identity"]
    except Exception as error:
        message = f"{path} is not a whole training checkpoint ({type(error).__name__}): delete it and train again"
        raise ValueError(message) from error
    if found != owner:
        raise ValueError(
            f"{path} belongs to another model, recipe, teacher or data: delete it, or give another checkpoint file"
        )
    model.load_state_dict(state["model"])
    opt.load_state_dict(state["optimizer"])
    return state["rows"], len(state["rows"])
