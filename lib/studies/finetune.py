"""Training with the grid: fine-tunes over an FP32 control, their teacher, and from scratch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from minitransformer.checkpoint import load, save
from minitransformer.corpus import Batches
from minitransformer.model import Transformer
from minitransformer.quant import quantize
from minitransformer.train import (
    GOOD,
    TrainConfig,
    convert,
    device_of,
    initialize,
    prepare_qat,
    train,
)

from .formats import formats
from .scores import Scores
from .workers import at_once, side_by_side, ticks


@dataclass(frozen=True)
class Plan:
    """Steps and rates of the fine-tunes of one model."""

    steps: int
    batch: int
    window: int
    lr: float  # of a fine-tune that learns from its control
    control_lr: float  # of the control, and of what learns from the text in more than two bits
    seed: int
    device: str = "cpu"  # see `device_of`

    @property
    def recipe(self):
        size = {"steps": self.steps, "batch_size": self.batch, "window": self.window}
        rates = {
            "lr": self.control_lr,
            "warmup": min(10, max(self.steps // 10, 1)),
            "cooldown": 1.0,
        }
        adam = {"optimizer": "adamw", "betas": (0.9, 0.999), "weight_decay": 0.0}
        return replace(GOOD, **size, **rates, **adam, short_steps=0)

    def lesson(self, start, folder, bits=None, teacher=None, lr=None) -> "Lesson":
        """By default the control's."""
        recipe = replace(self.recipe, lr=self.control_lr if lr is None else lr)
        return Lesson(start, bits, teacher, recipe, self.seed, folder, self.device)


def scheme(bits: int):
    return formats()[f"int{bits} g32 asym"]


@dataclass(frozen=True)
class Lesson:
    """One training: the model of a folder, read on the grid of so many bits (None: in FP32), learns
    from the model of another (None: from the text), and is kept, packed, in a third."""

    start: Path
    bits: int | None
    teacher: Path | None
    recipe: TrainConfig
    seed: int  # of the batches
    folder: Path
    device: str = "cpu"

    def __str__(self):
        return self.folder.name


def learn(lesson: Lesson, words, tick: Callable[[int], None]) -> bool:
    """Whether what is kept computes, to the last bit, the logits that were trained."""
    model, teacher = load(lesson.start)[0], lesson.teacher and load(lesson.teacher)[0]
    if teacher is not None:
        teacher.to(device_of(lesson.device))
    learner = model
    if lesson.bits is not None:  # a copy that reads its weights on the grid, clipped if that is 2
        learner = prepare_qat(model, scheme(lesson.bits), "mse" if lesson.bits == 2 else "rtn")
    batches = Batches(words, seed=lesson.seed, **lesson.recipe.batches).batch
    learner.requires_grad_(True).to(device_of(lesson.device))
    train(learner, batches, lesson.recipe, teacher=teacher, on_step=lambda row: tick(row["step"]))
    learner.eval().cpu()
    save(learner if lesson.bits is None else convert(learner), lesson.folder)
    ids = torch.from_numpy(words[: lesson.recipe.window].copy())[None]
    with torch.no_grad():
        return torch.equal(learner(ids), load(lesson.folder)[0](ids))


def taught(lessons: list[Lesson], words, what: str, threads: int = 1, progress=None) -> list[bool]:
    """`learn` of every lesson, `threads` at once; see `side_by_side`, and `ticks` of `what`."""
    workers = at_once(threads, len(lessons))
    done = ticks(progress, sum(lesson.recipe.steps for lesson in lessons), what)
    return side_by_side(learn, lessons, words, workers=workers, done=done, cost=size)


def size(lesson: Lesson) -> int:
    """What a lesson costs, up to a factor: its model's bytes."""
    return (lesson.start / "model.safetensors").stat().st_size


def fine_tunes(
    starts: dict[str, Path], words, bits, plan: Plan, folder: Path, **how
) -> tuple[dict[str, dict], tuple[int, int]]:
    """Of each model, by its name and folder, the control, which takes the steps in FP32, and for
    each width what learned from the control's distribution on the same batches in the same order,
    packed, as `kept` returns them; and how many, of how many, compute the very logits that were
    trained. `how` is `threads` and `progress`."""
    places = {start: folder / start.name for start in starts.values()}
    controls = [plan.lesson(start, place / "control") for start, place in places.items()]
    taught(controls, words, "controls", **how)
    lessons = [
        plan.lesson(start, place / f"int{width}", width, place / "control", plan.lr)
        for width in sorted(bits, reverse=True)
        for start, place in places.items()
    ]
    exact = taught(lessons, words, "fine-tunes", **how)
    tuned = {name: kept(places[start], bits) for name, start in starts.items()}
    return tuned, (sum(exact), len(exact))


def kept(folder: Path, bits) -> dict:
    """{"control": model, 4: packed model, ...}: what `fine_tunes` left of one model."""
    found = {width: load(folder / f"int{width}")[0] for width in sorted(bits, reverse=True)}
    return {"control": load(folder / "control")[0], **found}


def over_control(name: str, tuned: dict, scores: Scores) -> pd.DataFrame:
    """A row a width: the control over the FP32 model that it began from, whose losses `scores`
    has, and, over the control, the control rounded and what was fine-tuned."""
    scores.add("control", tuned["control"])
    row = {"model": name, "control_percent": scores.added("control")["added_percent"]}
    rows = []
    for width in [w for w in tuned if w != "control"]:
        own, rounded = f"int{width} tuned", f"int{width} control rounded"
        scores.add(own, tuned[width])
        scores.add(rounded, quantize(tuned["control"], scheme(width)))
        gap = {"bits": width, "rounded_percent": scores.added(rounded, "control")["added_percent"]}
        gap |= scores.added(own, "control") | scores.recovered(own, rounded, "control")
        rows.append(row | gap)
    return pd.DataFrame(rows)


def teachers(
    start: Path, control: Path, words, bits, plan: Plan, scores: Scores, **how
) -> pd.DataFrame:
    """What the teacher gives: the fine-tunes of `fine_tunes` from the text, and an FP32 model
    without a grid that learns from the control. A row each, over the control, and one over the
    other, each with its learning rate (`lr`, `teacher_lr`); `how` is `threads` and `progress`."""
    with TemporaryDirectory() as place:
        lessons = [plan.lesson(start, Path(place) / "free", None, control, plan.lr)]
        for width in sorted(bits, reverse=True):
            rate = plan.lr if width == 2 else plan.control_lr
            lessons.append(plan.lesson(start, Path(place) / f"int{width}", width, None, rate))
        taught(lessons, words, "teachers", **how)
        models = [load(lesson.folder)[0] for lesson in lessons]
    scores.add("free", models[0])
    rows = [{"format": "FP32, from the control", "lr": plan.lr, **scores.added("free", "control")}]
    for lesson, model in zip(lessons[1:], models[1:], strict=True):
        text = f"int{lesson.bits} from the text"
        scores.add(text, model)
        row = {"format": f"int{lesson.bits}, from the text", "lr": lesson.recipe.lr}
        gap = {"lr": plan.lr} | scores.added(f"int{lesson.bits} tuned", text)
        row |= scores.added(text, "control")
        rows.append(row | {f"teacher_{key}": value for key, value in gap.items()})
    return pd.DataFrame(rows)


def from_scratch(cfg, words, plan: Plan, scores: Scores, bits=(4, 2), **how) -> pd.DataFrame:
    """One initialisation trained in FP32 and on each grid, on the same batches: a row a width;
    `how` is `threads` and `progress`."""
    own = {name: getattr(GOOD, name) for name in ("lr", "cooldown", "betas", "weight_decay")}
    short = {"short_window": min(GOOD.short_window, plan.window), "short_steps": plan.steps // 5}
    warmup = min(GOOD.warmup, max(plan.steps // 10, 1))
    recipe = replace(plan.recipe, **own, **short, warmup=warmup)
    names = {None: "control"} | {width: f"int{width}" for width in bits}
    with TemporaryDirectory() as place:
        start = Path(place) / "start"
        save(initialize(Transformer(cfg), recipe.initialization, plan.seed), start)
        lessons = [
            Lesson(start, width, None, recipe, plan.seed + 1, Path(place) / name, plan.device)
            for width, name in names.items()
        ]
        taught(lessons, words, "from scratch", **how)
        runs = {lesson.bits: load(lesson.folder)[0] for lesson in lessons}
    scores.add("scratch control", runs[None])
    rows = []
    for b in bits:
        own, rounded = f"scratch int{b}", f"scratch int{b} rounded"
        scores.add(own, runs[b])
        scores.add(rounded, quantize(runs[None], scheme(b)))
        over = scores.added(own, rounded)
        rows.append({"bits": b, "perplexity": scores.perplexity(own)})
        rows[-1]["control_perplexity"] = scores.perplexity("scratch control")
        rows[-1]["over_control_percent"] = scores.added(own, "scratch control")["added_percent"]
        rows[-1] |= {f"over_rounded_{key}": value for key, value in over.items()}
    return pd.DataFrame(rows)
