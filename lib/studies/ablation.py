"""Which choices matter? Arms that differ from the default in one thing each, paired by seed."""

from dataclasses import replace

import numpy as np
import pandas as pd

from minitransformer.bench import kv_bytes
from minitransformer.corpus import LARGE, MECHANISMS, MINIMAL, SMALL, Corpus, language_corpus
from minitransformer.evaluate import by_group, token_losses
from minitransformer.model import ModelConfig
from minitransformer.train import GOOD, RECIPES, TrainConfig

from . import activations, error_budget, seeds
from .arms import Arm, Text, fit, repeated, size
from .workers import at_once

LANGUAGES = {"minimal": MINIMAL, "small": SMALL, "large": LARGE}
SPANS = (64, 128, 256, 512, 1024)
POSITIONS = {"default": "rotary", "sinusoidal positions": "sinusoidal", "no positions": "none"}
HEADS = {
    "default": "one per head (MHA)",
    "grouped queries": "one per two heads (GQA)",
    "multi-query": "one for all (MQA)",
}
SIZES = {
    "width 64": "width 64",
    "default": "width 128, 1 block",
    "width 256": "width 256",
    "2 blocks": "2 blocks",
}


def corpus(given: Corpus, language: str, seed: int, salt: str, sizes) -> Corpus:
    """What the arms read: the text that was given, or a language of its own by name, with splits of
    these `sizes`."""
    return (
        given if given.kind == "text" else language_corpus(seed, salt, LANGUAGES[language], *sizes)
    )


def recipe(steps: int, batch_size: int, window: int) -> TrainConfig:
    """The training chapter's recipe for short arms: AdamW throughout, no short windows."""
    short = {"short_window": min(32, window), "short_steps": 0, "optimizer": "adamw"}
    size = {"steps": steps, "batch_size": batch_size, "window": window}
    return replace(GOOD, **size, **short, warmup=max(steps // 20, 1))


def texts(words: Corpus, control: Corpus, window: int, tokens: int) -> dict[str, Text]:
    """What the arms read and are scored on: at most so many `tokens` of the language's test split,
    and the test split of the control in windows of the original's."""
    return {
        "language": Text.of(words, "test", window, tokens),
        "control": Text.of(control, "test", RECIPES["seed"].window),
    }


def changes(cfg: ModelConfig, recipe: TrainConfig) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """Name -> (model, recipe), the default first; every other changes one thing, at equal tokens.

    Where query heads share keys and values the feed-forward network is widened until the parameters
    are the default's again; another training window fills a step with more or fewer windows."""
    found = {"default": (cfg, recipe)}
    found["sinusoidal positions"] = replace(cfg, position="sinusoidal"), recipe
    found["no positions"] = replace(cfg, position="none"), recipe
    for width in (64, 256):
        found[f"width {width}"] = replace(cfg, d_model=width), recipe
    for name, heads in {"grouped queries": cfg.n_heads // 2, "multi-query": 1}.items():
        own = replace(cfg, n_kv_heads=heads)
        wider = round((size(cfg) - size(own)) / (2 * cfg.d_model + 1))
        found[name] = replace(own, d_ff=cfg.ffn_dim + wider), recipe
    found["2 blocks"] = replace(cfg, n_layers=2), recipe
    found["smeared keys"] = replace(cfg, smeared_keys=True), recipe
    if recipe.window > 64 and recipe.batch_size * recipe.window % 64 == 0:
        batch = recipe.batch_size * recipe.window // 64
        short = {"batch_size": batch, "window": 64, "short_window": min(recipe.short_window, 64)}
        # scored as all are, in windows that it was not trained on: its name says so
        found[f"window 64 read in {recipe.window}"] = cfg, replace(recipe, **short)
    return found


def described(changed: dict) -> pd.DataFrame:
    """Every arm: which fields differ from the default's, parameters, tokens seen."""
    rows, (cfg, recipe) = [], changed["default"]
    for name, (own, plan) in changed.items():
        fields = [k for k in vars(cfg) if vars(own)[k] != vars(cfg)[k]]
        fields += ["window"] * (plan.window != recipe.window)
        row = {"arm": name, "changes": ", ".join(fields) or "-", "parameters": size(own)}
        rows.append(row | {"tokens": plan.tokens})
    return pd.DataFrame(rows)


def arms(changed: dict, seed: int, runs: int) -> list[Arm]:
    """Every change with as many seeds."""
    own = [Arm(name, *what, seed, "language") for name, what in changed.items()]
    return [arm for each in own for arm in repeated(each, runs)]


def scored(arm: Arm, texts: dict[str, Text], tick) -> dict[str, pd.DataFrame]:
    """One arm trained and scored: "losses" as in `tested`, and of the default on the language
    "formats", what each format of its activations adds."""
    text = texts[arm.text]
    model, rows = fit(arm, text, tick)
    table, own = tested(arm, text, model, rows)
    if arm.text != "language" or arm.name != "default":
        return {"losses": table}
    return {"losses": table, "formats": activations.added(model, text, own).assign(seed=arm.seed)}


def tested(arm: Arm, text: Text, model, rows: list[dict]) -> tuple[pd.DataFrame, np.ndarray]:
    """A row an evaluated window of a trained arm, and its loss on each token of the text.

    Position encodings are also evaluated on longer windows, as far as the text holds two of each.
    """
    moves = arm.text == "language" and arm.name in POSITIONS
    longer = [w for w in SPANS if moves and text.window < w < len(text.held_out) // 2]
    # the control side by side, as the training chapter scores it
    step = text.window if arm.text == "control" else None
    losses = {w: token_losses(model, text.held_out, w, step) for w in (text.window, *longer)}
    step_ms = 1e3 * float(np.median([row["seconds"] for row in rows]))
    about = {"text": arm.text, "arm": arm.name, "seed": arm.seed, "parameters": size(arm.cfg)}
    about |= {"tokens": arm.recipe.tokens, "step_ms": step_ms}
    table = pd.DataFrame(
        [about | {"evaluated_window": w, "nats": nats.mean()} for w, nats in losses.items()]
    )
    own = losses[text.window]
    if text.oracle is not None:
        excess = by_group(own + text.oracle[1:], text.groups[1:], text.names, n=2)
        for name, value in zip(excess.group, excess["mean"], strict=True):
            table.loc[:0, f"excess_{name}_nats"] = value
    return table, own


def joined(found: list[dict], name: str) -> pd.DataFrame:
    """One table of all arms."""
    return pd.concat([tables[name] for tables in found if name in tables], ignore_index=True)


def results(found: list[dict], threads: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The losses and the formats of all arms (see `scored`), and beside the losses how many arms
    were trained side by side."""
    losses = joined(found, "losses").assign(side_by_side=at_once(threads, len(found)))
    return losses, joined(found, "formats")


def at_home(losses: pd.DataFrame, window: int) -> pd.DataFrame:
    """Loss at the training window: a row a seed, a column an arm, the default first."""
    own = losses[losses.evaluated_window == window]
    return own.pivot(index="seed", columns="arm", values="nats")[list(dict.fromkeys(own.arm))]


def stops(losses: pd.DataFrame, window: int, words: Corpus) -> pd.DataFrame:
    """Where each arm stops: its loss, its share of the way from a uniform guess to the source's own
    entropy, and what it still loses over the source by mechanism; means over seeds."""
    uniform, floor = np.log(words.vocab_size), words.floor_nats
    known = [c for c in (f"excess_{name}_nats" for name in MECHANISMS) if c in losses]
    own = losses[losses.evaluated_window == window]
    table = own.groupby("arm", sort=False)[["nats", *known]].mean().reset_index()
    table.insert(2, "learnt_percent", 100 * (uniform - table.nats) / (uniform - floor))
    return table


def recovered(stops: pd.DataFrame, data) -> str:
    """The share of each mechanism's worth (see `error_budget.worth`) of the language that the
    default has learnt where it stops, as a list to be read; "none" where that is nothing, or where
    it loses more than a guess."""
    worth = error_budget.worth(data, list(MECHANISMS))
    row = stops.set_index("arm").loc["default"]
    shares = {m: 1 - row[f"excess_{m}_nats"] / nats for m, nats in worth.items() if nats > 0}
    told = {m: f"{100 * share:.0f} %" if share >= 0.005 else "none" for m, share in shares.items()}
    return ", ".join(f"{name} {share}" for name, share in told.items())


def learnt(stops: pd.DataFrame, data) -> dict:
    """Of what can be learnt the `share` in % that the default has learnt, and its share of `each`
    mechanism's worth, as a list."""
    share = stops.set_index("arm").learnt_percent["default"]
    return {"share": share, "each": recovered(stops, data)}


def limits(data) -> list[tuple[float, str]]:
    """The loss below which nothing can come, by its name; [] where nobody knows it."""
    return [] if data.floor_nats is None else [(data.floor_nats, "entropy of the source")]


def by_length(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss of each position encoding by evaluated window: means over seeds with 95 % intervals."""
    own = losses[losses.arm.isin(POSITIONS)]
    own = own.assign(positions=own.arm.map(POSITIONS))
    return seeds.means(own, ["positions", "evaluated_window"], "nats")


def rotary_gain(losses: pd.DataFrame, window: int, level: float) -> seeds.Estimate:
    """Rotary minus sinusoidal at an evaluated window, paired by seed."""
    own = losses[losses.evaluated_window == window]
    wide = own[own.arm.isin(POSITIONS)].pivot(index="seed", columns="arm", values="nats")
    return seeds.mean(wide["default"] - wide["sinusoidal positions"] if len(wide) else [], level)


def costs(effects: pd.DataFrame, losses: pd.DataFrame, changed: dict, names: dict) -> pd.DataFrame:
    """The arms `names`, by what they cost (parameters, cache, time of a training step) and by the
    change of the loss against the default, which itself is 0 and has no interval."""
    own = losses[losses.arm.isin(names)].groupby("arm")
    table = own.agg(parameters=("parameters", "first"), step_ms=("step_ms", "median"))
    table = table.loc[[*names]]
    table["kv_heads"] = [changed[name][0].kv_heads for name in names]
    table["cache_bytes_per_token"] = [kv_bytes(changed[name][0], 1) for name in names]
    change = effects.set_index("change")[["difference_nats", "low", "high"]]
    table = table.join(change).fillna({"difference_nats": 0.0})
    return table.rename(index=names).rename_axis("what").reset_index()


def parameters_apart(sized: pd.DataFrame) -> float:
    """By how many % the parameters of the rows of `costs` differ at most from the first's."""
    return 100 * float((sized.parameters / sized.parameters.iloc[0] - 1).abs().max())


def bend(home: pd.DataFrame, level: float) -> seeds.Estimate:
    """What the doubling from width 64 to 128 gains more than the next one, paired by seed."""
    return seeds.mean(home["width 64"] + home["width 256"] - 2 * home["default"], level)
