"""What the library's own loop reaches on named texts within budgets of wall-clock seconds.

A budget is of training: the steps of a schedule are planned from the pace of a short calibration,
which counts too, so that the learning rate has come down to zero when the budget ends. Scoring
comes after it. An interrupted run goes on from its checkpoint with the plan that it began with."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from minitransformer.corpus import SMALL as SMALL_LANGUAGE
from minitransformer.corpus import Batches, Corpus, catalogue, language_corpus, on_disk, text_corpus
from minitransformer.evaluate import KneserNey, Monitor, bits_per_byte, log_steps, token_losses
from minitransformer.evaluate.perplexity import summary
from minitransformer.files import replacing
from minitransformer.model import Transformer
from minitransformer.train import TrainConfig, initialize, train

from .arms import size
from .presets import BUDGETS, FIFTH, GENERATED, PUBLISHED, Budget
from .update_costs import SETTLED
from .words import with_interval
from .workers import keep_memory

CALIBRATED = 9  # steps that a calibration times at least, behind those that settle it
TRIAL = 0.01  # of a budget: how long it goes on, for a pace of seconds may not be that of minutes
MARGIN = 0.08  # of a budget, for a machine that grows slower
POINTS, WATCHED = 16, 8192  # looks on the way, and tokens of each
ALL = "all"
MISSING = (
    "not at hand (make data CORPUS=its name PROFILE=quick downloads it once, or give CORPORA_DIR=a "
    "folder that holds it)"
)
NAMED = {GENERATED: "the synthetic language"}


def chosen(names: list[str], recipe_seconds: float | None = None) -> dict[str, Budget]:
    """The budgets of these names, "all" for every one of a real text. A fifth is of the seconds of
    nanoGPT's recipe: without them (0) there is none."""
    names = [n for n, b in BUDGETS.items() if b.text != GENERATED] if ALL in names else names
    found = {name: BUDGETS[name] for name in names}
    if recipe_seconds and FIFTH in found:
        found[FIFTH] = replace(found[FIFTH], seconds=recipe_seconds / 5)
    elif recipe_seconds == 0:
        found.pop(FIFTH, None)
    return found


def corpora(budgets: dict[str, Budget], folder: Path | None) -> tuple[dict[str, Corpus], dict]:
    """Text -> corpus of every text that is at hand, cut 90/10 as nanoGPT does where it has no
    official split; and text -> why not, of the others. Nothing is downloaded."""
    found, absent, known = {}, {}, catalogue()
    for text in dict.fromkeys(budget.text for budget in budgets.values()):
        try:
            if text == GENERATED:
                found[text] = language_corpus(42, "0" * 32, SMALL_LANGUAGE, 20_000, 2_000, 2)
                continue
            files = known[text]["files"]
            if len(on_disk(known[text], folder)) < len(files):
                absent[text] = MISSING
                continue
            split = "nanogpt" if files[0]["split"] == "all" else ""
            found[text] = text_corpus(text, corpora_dir=folder, split=split)
        except (OSError, ValueError) as error:
            absent[text] = str(error)
    return found, absent


def planned(seconds: float, pace: float) -> int:
    """Steps that fit `seconds` at `pace` seconds a step, with `MARGIN` left; at least one."""
    return max(1, math.floor(seconds * (1 - MARGIN) / pace))


def over(recipe: TrainConfig, steps: int) -> TrainConfig:
    """The recipe over so many steps; no more than a tenth of them warm up."""
    return replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 10))


def plan(budget: Budget, model, batch: Callable) -> dict:
    """How many steps fit, from the pace of the first ones on a copy of the model: steps, seconds a
    step, and the seconds that finding out took."""
    trial, few, paces, spent = copy.deepcopy(model), SETTLED + CALIBRATED, [], 0.0
    while not paces or spent < TRIAL * budget.seconds:
        taken = [row["seconds"] for row in train(trial, batch, over(budget.recipe, few))]
        paces, spent = paces + taken[SETTLED:], spent + sum(taken)
    pace = float(np.median(paces))
    return {"steps": planned(budget.seconds - spent, pace), "pace": pace, "spent": spent}


def once(path: Path, make: Callable):
    """What `path` keeps as JSON: of `make()`, where nothing is kept yet."""
    if not path.is_file():
        with replacing(path) as part:
            part.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def trained(budget: Budget, corpus: Corpus, where: Path, seed: int = 0):
    """The model, its plan and its log: a row a step, with `valid_nats` at some."""
    keep_memory()
    cfg = replace(budget.cfg, vocab_size=corpus.vocab_size)
    model = initialize(Transformer(cfg), budget.recipe.initialization, seed)
    batches = Batches(corpus.splits["train"], seed=seed, **budget.recipe.batches)
    found = once(where / "plan.json", lambda: plan(budget, model, batches.batch))
    window, ids = budget.recipe.window, corpus.splits[budget.scored][:WATCHED]
    monitor = Monitor(model, ids, window, log_steps(found["steps"], min(POINTS, found["steps"])))

    kept = {"checkpoint": where / "checkpoint.pt", "every": max(200, found["steps"] // 20)}
    rows = train(model, batches.batch, over(budget.recipe, found["steps"]), on_step=monitor, **kept)
    return model, found, rows


def reached(name: str, budget: Budget, corpus: Corpus, where: Path):
    """One row of what a budget reached on the whole of its split, and its learning curve: seconds
    of training, valid_nats. What is finished is kept in `where`, and read from there again."""

    def made():
        model, found, log = trained(budget, corpus, where)
        taken = np.cumsum([row["seconds"] for row in log]) + found["spent"]
        curve = [{"seconds": float(s), "valid_nats": row["valid_nats"]}
                 for s, row in zip(taken, log, strict=True) if "valid_nats" in row]  # fmt: skip
        row = {"budget": name, "text": budget.text} | scores(budget, model, corpus)
        row |= {"steps": found["steps"], "tokens": log[-1]["tokens"], "seconds": float(taken[-1])}
        row |= {"allowed_seconds": budget.seconds, "bar": budget.bar, "judged": budget.judged}
        return {"row": row, "curve": curve}

    kept = once(where / "result.json", made)
    (where / "checkpoint.pt").unlink(missing_ok=True)
    return kept["row"], pd.DataFrame(kept["curve"]).assign(who=f"ours, {name}", text=budget.text)


def spent(budgets: dict[str, Budget], corpora: dict, folder: Path, progress=None):
    """What all budgets whose text is at hand reached: their rows and curves, see `reached`; each is
    kept in a folder of `folder`. `progress(iterable, what)` shows it."""
    own = [(name, budget) for name, budget in budgets.items() if budget.text in corpora]
    rows, curves = [], []
    for name, budget in progress(own, "budgets of seconds") if progress else own:
        row, curve = reached(name, budget, corpora[budget.text], folder / name.replace(" ", "-"))
        rows.append(row)
        curves.append(curve)
    return rows, curves


def scores(budget: Budget, model, corpus: Corpus) -> dict:
    """The loss on the whole of a split, in windows as in training that overlap by half: every token
    but the first ones sees at least half a window. Beside it the n-gram's, which sees all."""
    ids, window = corpus.splits[budget.scored], budget.recipe.window
    found = summary(token_losses(model, ids, window, max(1, window // 2), 32))
    half = 1.96 * found.stderr
    ngram = KneserNey(corpus.splits["train"], budget.order, corpus.vocab_size)
    return {
        "parameters": size(model.cfg),
        "scored": f"{budget.scored}, {found.tokens:,} tokens, windows of {window}",
        "nats": found.nll,
        "low": found.nll - half,
        "high": found.nll + half,
        "perplexity": found.value,
        "bits_per_byte": bits_per_byte(found.nll, len(ids), corpus.n_bytes[budget.scored]),
        "ngram": f"Kneser-Ney {budget.order}",
        "ngram_nats": float(ngram.report(ids).nll.mean()),
    }


def reader_table(rows: list[dict]) -> pd.DataFrame:
    """What the budgets reached, as a table for readers."""
    columns = ["budget", "text", "parameters", "steps", "seconds", "allowed_seconds", "nats",
               "low", "high", "perplexity", "bits_per_byte", "ngram", "ngram_nats"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table = table.round({"seconds": 1, "perplexity": 2, "bits_per_byte": 3, "ngram_nats": 4})
    return table.rename(columns={"ngram": "n-gram", "ngram_nats": "n-gram, nats"})


def published(texts) -> pd.DataFrame:
    """Results of others on these texts, with what they took."""
    columns = ["text", "who", "parameters", "their_budget", "nats", "source"]
    table = pd.DataFrame(PUBLISHED, columns=columns)
    return table[table.text.isin(list(texts))].round({"nats": 4})


def listed() -> pd.DataFrame:
    """The presets: budget, text, seconds, model (layers × width), batch (windows × tokens), lr."""
    rows = [
        {"budget": name, "text": b.text, "seconds": b.seconds,
         "layers_width": f"{b.cfg.n_layers} × {b.cfg.d_model}",
         "batch": f"{b.recipe.batch_size} × {b.recipe.window}", "lr": b.recipe.lr}
        for name, b in BUDGETS.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def not_run(rows: list[dict], names: list[str]) -> str:
    """Which budgets were not spent, and why, in a sentence or two."""
    done, asked = {row["budget"] for row in rows}, chosen(names)
    rest = [n for n, b in BUDGETS.items() if n not in asked and b.text != GENERATED]
    lost = [n for n in asked if n not in done]
    said = [f"Not in this profile: {', '.join(rest)}."] if rest else []
    named = ", ".join(f"“{name}”" for name in lost)
    said += [f"Asked for, and not run for want of the text or of nanoGPT: {named}."] * bool(lost)
    return " ".join(said) or "Every budget was spent."


def kept_time(row: dict) -> bool:
    """Whether a training ended within its budget."""
    return row["seconds"] <= row["allowed_seconds"]


def in_time(rows: list[dict]) -> tuple[int, int]:
    """How many budgets of real texts were kept, of how many."""
    real = [r for r in rows if r["text"] != GENERATED and r["allowed_seconds"]]
    return sum(map(kept_time, real)), len(real)


def answer(rows: list[dict], absent: dict) -> str:
    """The chapter in a sentence; rows with a `date` were measured apart."""
    done = [
        f"{row['seconds']:,.0f} s of training on {NAMED.get(row['text'], row['text'])}"
        f"{', measured apart,' * isinstance(row.get('date'), str)} reach "
        f"{with_interval(row['nats'], row['low'], row['high'])} nats a token ({row['ngram']}-gram: "
        f"{row['ngram_nats']:.3f})"
        for row in rows
    ]
    lost = f"this run itself lacked the text of {', '.join(absent)}" if absent else ""
    if not done:
        return f"No budget was spent here ({lost or 'nanoGPT was not run'})."
    return "; ".join([*done, *([lost] if lost else [])]) + "."


def at_hand(corpora, absent: dict) -> str:
    """Which texts are there, and why the others are not."""
    reasons = {why: [text for text in absent if absent[text] == why] for why in absent.values()}
    names = ", ".join(NAMED.get(text, text) for text in corpora) or "none"
    others = [f"{', '.join(texts)}: {why}" for why, texts in reasons.items()]
    return ". ".join([f"Texts at hand: {names}", *others]) + "."


def joined(curves: list, peer: pd.DataFrame) -> pd.DataFrame:
    """Learning curves of this run: who, text, seconds, valid_nats."""
    found = [table for table in (*curves, peer) if len(table)]
    columns = ["who", "text", "seconds", "valid_nats"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def lines_of(rows: list[dict], shown: pd.DataFrame) -> list[tuple[float, str]]:
    """The n-gram's loss on each text that a figure shows, as its limits."""
    own = {row["text"]: (row["ngram_nats"], row["ngram"]) for row in rows}
    return [own[text] for text in shown.text.unique() if text in own]


def below_ngram(rows: list[dict]) -> tuple[float, tuple[float, float]] | None:
    """The model's loss less the n-gram's on the same text, in nats a token, with the interval of
    the model's, after the longest budget of each text, of the text where that is the most; None
    where no real text was trained on."""
    real = sorted(rows, key=lambda row: row["allowed_seconds"])
    longest = {row["text"]: row for row in real if row["text"] != GENERATED}
    over = [[row[x] - row["ngram_nats"] for x in ("nats", "low", "high")]
            for row in longest.values()]  # fmt: skip
    return max(((value, tuple(ends)) for value, *ends in over), default=None)
