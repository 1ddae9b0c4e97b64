"""Training with the grid: fine-tunes over an FP32 control, their teacher, and from scratch."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import pandas as pd
import torch

from minitransformer.checkpoint import load, save
from minitransformer.corpus import Batches
from minitransformer.model import Transformer
from minitransformer.quant import quantize
from minitransformer.train import GOOD, convert, initialize, prepare_qat, train

from .formats import formats
from .scores import Scores


@dataclass(frozen=True)
class Plan:
    """Steps and rates of the fine-tunes of one model."""

    steps: int
    batch: int
    window: int
    lr: float  # of a fine-tune that learns from its control
    control_lr: float  # of the control, and of a fine-tune that learns from the text
    seed: int

    @property
    def recipe(self):
        return replace(
            GOOD,
            steps=self.steps,
            batch_size=self.batch,
            window=self.window,
            short_steps=0,
            lr=self.control_lr,
            cooldown=1.0,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            warmup=min(10, max(self.steps // 10, 1)),
        )

    def batches(self, ids):
        return Batches(ids, seed=self.seed, **self.recipe.batches).batch


def scheme(bits: int):
    return formats()[f"int{bits} g32 asym"]


def on_grid(model, bits: int):
    """A trainable copy that reads its weights on the grid; clipped where levels are few."""
    return prepare_qat(model, scheme(bits), "mse" if bits == 2 else "rtn")


def telling(done):
    """An `on_step` that tells of each step; what a progress bar returns is nothing to log."""

    def on_step(row):
        if done:
            done(1)

    return on_step


def taught(model, batches, recipe, done, teacher=None):
    """`model` after the recipe's steps; it is changed."""
    model.requires_grad_(True)
    train(model, batches, recipe, teacher=teacher, on_step=telling(done))
    return model.eval()


def fine_tunes(model, ids, bits, plan: Plan, done: Callable[[int], None] | None = None) -> dict:
    """{"control": the FP32 model after as many steps, 4: (learner, packed model), ...}: each learns
    from the control's distribution, on the same batches in the same order."""
    batches = plan.batches(ids)
    control = taught(deepcopy(model), batches, plan.recipe, done)
    found = {"control": control}
    for width in sorted(bits, reverse=True):
        learner = on_grid(model, width)
        taught(learner, batches, replace(plan.recipe, lr=plan.lr), done, control)
        found[width] = learner, convert(learner)
    return found


def keep(tuned: dict, folder) -> None:
    """Saves a control and its packed fine-tunes for who comes after."""
    save(tuned["control"], folder / "control")
    for width, pair in tuned.items():
        if width != "control":
            save(pair[1], folder / f"int{width}")


def kept(folder, bits) -> dict:
    """What `keep` saved, as `fine_tunes` returns it, without the learners."""
    found = {width: (None, load(folder / f"int{width}")[0]) for width in sorted(bits, reverse=True)}
    return {"control": load(folder / "control")[0], **found}


def exact_logits(tuned: dict, ids: torch.Tensor) -> tuple[int, int]:
    """(how many, of how many) packed models compute the logits they were trained with."""
    pairs = [pair for width, pair in tuned.items() if width != "control"]
    with torch.no_grad():
        same = [torch.equal(learner(ids), packed(ids)) for learner, packed in pairs]
    return sum(same), len(same)


def over_control(name: str, tuned: dict, scores: Scores) -> pd.DataFrame:
    """A row a width: the control rounded, and fine-tuned, both over the control."""
    control, rows = f"{name} control", []
    scores.add(control, tuned["control"])
    for width, pair in tuned.items():
        if width == "control":
            continue
        own, rounded = f"{name} int{width} tuned", f"{name} int{width} control rounded"
        scores.add(own, pair[1])
        scores.add(rounded, quantize(tuned["control"], scheme(width)))
        row = {"model": name, "bits": width}
        row["rounded_percent"] = scores.added(rounded, control)["added_percent"]
        rows.append(row | scores.added(own, control) | scores.recovered(own, rounded, control))
    return pd.DataFrame(rows)


def teachers(name: str, model, tuned: dict, ids, plan: Plan, scores: Scores, done=None):
    """What the teacher gives: the same fine-tunes from the text, and an FP32 model without a grid
    that learns from the control. A row each, over the control, and one over the other."""
    batches, control = plan.batches(ids), f"{name} control"
    free = taught(
        deepcopy(model), batches, replace(plan.recipe, lr=plan.lr), done, tuned["control"]
    )
    scores.add(f"{name} free", free)
    rows = [{"format": "FP32, from the control", **scores.added(f"{name} free", control)}]
    for width in [w for w in tuned if w != "control"]:
        rate = plan.lr if width == 2 else plan.control_lr  # the better one for the text
        learner = taught(on_grid(model, width), batches, replace(plan.recipe, lr=rate), done)
        text, own = f"{name} int{width} from the text", f"{name} int{width} tuned"
        scores.add(text, convert(learner))
        row = {"format": f"int{width}, from the text", **scores.added(text, control)}
        gap = scores.added(own, text)
        rows.append(row | {f"teacher_{key}": value for key, value in gap.items()})
    return pd.DataFrame(rows)


def from_scratch(cfg, ids, plan: Plan, scores: Scores, bits=(4, 2), done=None) -> pd.DataFrame:
    """One initialisation trained in FP32 and on each grid, on the same batches: a row a width."""
    recipe = replace(
        plan.recipe,
        lr=GOOD.lr,
        cooldown=GOOD.cooldown,
        betas=GOOD.betas,
        weight_decay=GOOD.weight_decay,
        short_window=min(GOOD.short_window, plan.window),
        short_steps=plan.steps // 5,
        warmup=min(GOOD.warmup, max(plan.steps // 10, 1)),
    )
    batches = Batches(ids, seed=plan.seed + 1, **recipe.batches).batch
    start = initialize(Transformer(cfg), recipe.initialization, plan.seed)
    runs = {"control": deepcopy(start)} | {f"int{b}": on_grid(start, b) for b in bits}
    for model in runs.values():
        train(model, batches, recipe, on_step=telling(done))
        model.eval()
    scores.add("scratch control", runs["control"])
    rows = []
    for b in bits:
        own, rounded = f"scratch int{b}", f"scratch int{b} rounded"
        scores.add(own, convert(runs[f"int{b}"]))
        scores.add(rounded, quantize(runs["control"], scheme(b)))
        over = scores.added(own, rounded)
        rows.append({"bits": b, "perplexity": scores.perplexity(own)})
        rows[-1]["control_perplexity"] = scores.perplexity("scratch control")
        rows[-1]["over_control_percent"] = scores.added(own, "scratch control")["added_percent"]
        rows[-1] |= {f"over_rounded_{key}": value for key, value in over.items()}
    return pd.DataFrame(rows)
