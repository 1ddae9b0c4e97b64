"""Where does every system stand between a uniform guess and the floor?"""

import math

import numpy as np
import pandas as pd

from minitransformer.checkpoint import load
from minitransformer.corpus import window_bits, without
from minitransformer.evaluate import (
    TokenReport,
    beats_oracle,
    bits_per_byte,
    losses,
    paired_difference,
    summary,
    token_report,
)
from minitransformer.train import RECIPES

from . import seeds
from .corpus_facts import unit

SEED = "original recipe"
FLOOR = "floor (oracle)"
GRAMS = {0: "uniform guess", 1: "unigram"}  # by order; of two tokens: "2-gram", and so on


def models(folder) -> dict:
    """The trained models of a run by the names the chapter gives them: the original's recipe on
    this corpus where it was trained, the model, its twin, and both with smeared keys last."""
    found = {}
    for name in ("model-seed", "model", "model-2block", "model-smeared", "model-smeared-2block"):
        if (folder / name).is_dir():
            net = load(folder / name)[0]
            said = SEED if name == "model-seed" else f"{net.cfg.n_layers}-block model"
            said = f"smeared {said}" if net.cfg.smeared_keys else said
            found[f"{said} (twin)" if said in found else said] = net
    return found


def windows(nets: dict, train_window: int) -> dict[str, int]:
    """The window each model is scored in: what it was trained with, within its context."""
    own = {SEED: RECIPES["seed"].window}
    return {name: min(own.get(name, train_window), net.cfg.context) for name, net in nets.items()}


def trained(nets: dict) -> dict:
    """Of `models` the four that the chapter compares: the model, its twin, and both with smeared
    keys."""
    return dict(list(nets.items())[-4:])


def scored(nets: dict, test: np.ndarray, windows: dict[str, int]) -> dict[str, TokenReport]:
    """Every model on each token of the test split once, in its own window."""
    steps = {name: (windows[name], stride(windows[name])) for name in nets}
    return {name: token_report(net, test, *steps[name]) for name, net in nets.items()}


def stride(window: int) -> int:
    """By how much a window moves: half of itself."""
    return max(window // 2, 1)


def times_scored(n: int, window: int, stride: int) -> np.ndarray:
    """How often each of n predictions is scored, (n,), by the windows of the evaluation."""
    times = np.zeros(n, int)
    for starts, scored in losses.windows(n, window, stride, batch_size=8):
        for start in starts:
            end = start + min(window, n)
            times[end - scored : end] += 1
    return times


def orders(data) -> range:
    """The n-gram orders that are tried: characters tell less each, so more of them."""
    return range(9 if unit(data) == "character" else 6)


def by_order(counted: dict[int, TokenReport], tuning: dict[int, float], size: int) -> pd.DataFrame:
    """A row an n-gram order: perplexity on validation and test, and test accuracy; order 0 guesses
    among `size` tokens."""
    rows = [
        (n, math.exp(tuning[n]), perplexity(r), 100 * float(r.correct.mean()) if n else 100 / size)
        for n, r in counted.items()
    ]
    columns = ["order", "validation_perplexity", "test_perplexity", "test_accuracy_percent"]
    return pd.DataFrame(rows, columns=columns)


def longest(tuning: dict[int, float]) -> dict:
    """The order that is best on the validation split, the longest that was tried, and by how many
    nats that is `behind`."""
    best, last = min(tuning, key=tuning.get), max(tuning)
    return {"best": best, "longest": last, "behind": tuning[last] - tuning[best]}


def chosen(counted: dict[int, TokenReport], best: int) -> dict[str, TokenReport]:
    """The n-grams of the ladder by name: uniform, of one token, of two, and the one best on
    validation, which `best_name` finds."""
    kept = sorted({0, 1, 2, best} & set(counted))
    said = {n: GRAMS.get(n, f"{n}-gram") for n in kept}
    said[best] += " (best on validation)"
    return {said[n]: counted[n] for n in kept}


def best_name(reports) -> str:
    return next(name for name in reports if name.endswith("(best on validation)"))


def perplexity(report: TokenReport) -> float:
    return math.exp(report.nll.mean())


def same_tokens(reports: dict[str, TokenReport], tokens: int) -> bool:
    """Whether every system scored each of so many tokens once."""
    return all(len(report.nll) == tokens for report in reports.values())


def table(data, reports: dict[str, TokenReport], windows: dict[str, int]) -> pd.DataFrame:
    """A row a system on the test split, in the order of `reports`, then the oracle where there is
    one: perplexity with its interval, nats above the oracle on the same tokens, bits, accuracy, and
    the window and stride that it was scored with."""
    floor = oracle(data)
    nats = {name: report.nll for name, report in reports.items()}
    nats |= {} if floor is None else {FLOOR: floor}
    tokens, n_bytes, rows = len(data.splits["test"]), data.n_bytes["test"], []
    for name, nll in nats.items():
        s = summary(nll)
        rows.append(
            {
                "system": name, "perplexity": s.value,
                "low": s.interval[0], "high": s.interval[1], "nll_nats": s.nll,
                "above_floor_nats": np.nan if floor is None else s.nll - floor.mean(),
                "bits_per_token": s.bits, "bits_per_byte": bits_per_byte(s.nll, tokens, n_bytes),
                "accuracy": accuracy(name, reports, data.vocab_size),
                "window": windows.get(name),
                "stride": stride(windows[name]) if name in windows else None,
            }
        )  # fmt: skip
    return pd.DataFrame(rows).astype({"window": "Int64", "stride": "Int64"})


def accuracy(name: str, reports: dict[str, TokenReport], size: int) -> float:
    """Share of tokens guessed right; a uniform guess is right once in `size`, an oracle's best
    guess is not kept."""
    if name == FLOOR:
        return math.nan
    return 1 / size if name == GRAMS[0] else float(reports[name].correct.mean())


def oracle(data) -> np.ndarray | None:
    """The oracle's losses of the test tokens but the first, in nats; None where none is known."""
    return None if data.oracle is None else -data.oracle["test"][1:]


def shown(standing: pd.DataFrame) -> pd.DataFrame:
    """`table` to be read: hardest guess first, and only what a reader asks for and this corpus
    can answer."""
    rows = falling(standing).assign(accuracy=lambda table: 100 * table.accuracy)
    rows = rows.rename(columns={"accuracy": "accuracy_percent"})
    return rows.drop(columns=["nll_nats", "bits_per_token"]).dropna(axis=1, how="all")


def ladder(standing: pd.DataFrame) -> pd.DataFrame:
    """The systems to draw, hardest guess first; the oracle is a limit, not a system."""
    return falling(standing[standing.system != FLOOR])


def falling(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("perplexity", ascending=False, kind="stable", ignore_index=True)


def above_window(data, nets: dict, windows: dict[str, int]) -> pd.DataFrame:
    """By how many % each model's perplexity lies above the optimum of its window, on test windows
    side by side: a row a model, with the interval, paired with the oracle by token; no row where
    nobody knows the source."""
    rows, floor, test = [], oracle(data), data.splits["test"]
    for name, net in nets.items() if floor is not None else ():
        window = windows[name]
        hidden = math.log(2) * (window_bits(data.language, window) - data.language.entropy_bits)
        best = floor + hidden  # what a window that begins anew hides, in the mean
        gap = paired_difference(token_report(net, test, window, window).nll, best)
        above = (100 * math.expm1(nats) for nats in (gap.mean, *gap.interval))
        rows.append((name, math.exp(best.mean()), *above))
    return pd.DataFrame(rows, columns=["system", "optimum", "above_percent", "low", "high"])


def limits(data) -> list[tuple[float, str]]:
    """What no system passes on these tokens, and what none passes without induction; [] where
    nobody knows."""
    if data.oracle is None:
        return []
    best = math.exp(oracle(data).mean())
    return [(best, "oracle"), (2 ** without(data.language, "induction"), "all but induction")]


def ahead(report: TokenReport, counted: dict[int, TokenReport]) -> tuple[str, seeds.Estimate]:
    """The n-gram of lowest *test* loss, and the loss of a model minus its own, paired by token, in
    nats."""
    order = min(counted, key=lambda n: counted[n].nll.mean())
    found = paired_difference(report.nll, counted[order].nll)
    return f"order {order}", seeds.Estimate(found.mean, found.interval)


def nearest(data, reports: dict[str, TokenReport]) -> tuple[str, float]:
    """The system that comes nearest to the oracle, and by how many standard errors it lies below
    it: of an honest one a negative number, or a small one."""
    floor = oracle(data)
    below = {name: beats_oracle(report.nll, floor) for name, report in reports.items()}
    name = max(below, key=below.get)
    return name, below[name]


def nats(standing: pd.DataFrame, names) -> dict[str, float]:
    """Nats per token of the systems `names`."""
    at = standing.set_index("system").nll_nats
    return {name: at[name] for name in names}


def for_sentence(standing: pd.DataFrame, names: dict[str, str]) -> dict:
    """What the chapter's answer says: the perplexity of the hardest guess (`uniform`), that of the
    lowest row (`floor`), and of the systems `names`, {key: system}, the system and, under its key
    and "_ppl", its perplexity."""
    at = standing.set_index("system").perplexity
    each = {f"{key}_ppl": at[name] for key, name in names.items()}
    return names | each | {"uniform": at.max(), "floor": at.min()}


def metrics(
    standing, budget, errors: dict[str, float], about: dict, roles: dict[str, str]
) -> list[dict]:
    """metrics.json: a row a measurement, each with what it is `about` and the role of its system,
    by `roles` ("headline", "model", "n-gram"), "uniform", "floor" or none."""
    rows, roles = [], {GRAMS[0]: "uniform", FLOOR: "floor"} | roles
    for row in standing.to_dict("records"):
        for measure in ("perplexity", "nll_nats", "bits_per_token", "bits_per_byte", "accuracy"):
            bounds = {e: row[e] for e in ("low", "high")} if measure == "perplexity" else {}
            if not math.isnan(row[measure]):
                found = {"system": row["system"], "measure": measure, "value": row[measure]}
                rows.append(found | bounds | about)
    for name, value in errors.items():
        measure = "expected_calibration_error"
        rows.append({"system": name, "measure": measure, "value": value} | about)
    above = "excess_nats" if budget.floor_nats.any() else "nll_nats"  # a text has no floor
    for row in budget[budget["kind"] != "all"].to_dict("records"):
        found = {"system": row["system"], "measure": above, "kind": row["kind"]}
        found |= {"value": row["excess_nats"], "low": row["low"], "high": row["high"]}
        rows.append(found | about | {"tokens": row["tokens"]})
    return [row | {"role": roles.get(row["system"], "")} for row in rows]
