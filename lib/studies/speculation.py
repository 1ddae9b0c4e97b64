"""Does a draft pay? Tokens a forward and time, beside what the models' distributions and single
steps predict."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Sampling,
    distribution,
    generate,
    speculate,
)
from minitransformer.quant import QuantScheme, accelerate, quantize

from .processes import as_columns, speedup
from .words import span

TARGETS = {"1 block": "model", "2 blocks": "model-2block"}
INT4 = QuantScheme(bits=4, granularity="group", group_size=32)
WARM = Sampling(temperature=1.0)  # greedy text of a small model loops, and a loop is easily guessed


def makers(draft, target) -> dict:
    """Three drafts: a small model, the text itself, and the target's own int4 copy."""
    return {
        "a draft model": partial(ModelDraft, draft),
        "prompt lookup": PromptLookup,
        "its own int4": partial(ModelDraft, int4(target)),
    }


def run(target, draft, prompt, tokens: int, gamma: int, seed: int):
    """One sampled text by speculation."""
    generator = torch.Generator().manual_seed(seed)
    return speculate(target, draft, prompt, tokens, gamma=gamma, sampling=WARM, generator=generator)


def plain(target, prompts, tokens: int):
    """The same texts by plain cached decoding."""
    for i, prompt in enumerate(prompts):
        generate(target, prompt, tokens, sampling=WARM, generator=torch.Generator().manual_seed(i))


def measure(folder, prompts, tokens: int, repeats: int, gamma: int = 4) -> dict[str, pd.DataFrame]:
    """Samples of one process: `speculation` times each draft and plain decoding, interleaved;
    `judging` times the forwards."""
    prompts = [torch.from_numpy(np.asarray(p, dtype=np.int64))[None] for p in prompts]
    timed, judged = [], []
    for name, target, drafts in pairs(folder):
        ways = {"plain": partial(plain, target, prompts, tokens)}
        for draft, make in drafts.items():
            ways[draft] = partial(speculated, target, make, prompts, tokens, gamma)
            judged.append(forwards(target, make(), prompts[0], gamma, repeats, name, draft))
            speculated(target, make, prompts[:1], 2 * gamma, gamma)  # the first call
        timed.append(bench.interleaved(ways, repeats, warmup=0).assign(target=name))
    return {"speculation": pd.concat(timed), "judging": pd.concat(judged)}


def pairs(folder):
    """(name, target, {draft: how it is made}) of every target."""
    small = load(folder / "model-draft")[0]
    for name, stored in TARGETS.items():
        target = load(folder / stored)[0]
        yield name, target, makers(small, target)


def counts(folder, prompts, tokens: int, text, timed: int, gamma: int = 4) -> pd.DataFrame:
    """What each draft gives on sampled texts, and what the overlap of the two models on held-out
    `text` (ids) predicts: a row a target and draft. `timed_`: of the first so many texts."""
    rows = []
    for name, target, drafts in pairs(folder):
        ids = torch.from_numpy(np.asarray(text[: target.cfg.context], dtype=np.int64))[None]
        for draft, make in drafts.items():
            own = make()
            expected = overlap(target, own.model, ids) if isinstance(own, ModelDraft) else np.nan
            runs = speculated(target, make, prompts, tokens, gamma)
            row = {"target": name, "draft": draft, **counted(runs, expected)}
            first = counted(runs[:timed], expected)
            rows.append(row | {f"timed_{name}": found for name, found in first.items()})
    return pd.DataFrame(rows)


@torch.no_grad()
def overlap(target, draft, ids) -> float:
    """The share of proposals that the target accepts, Σ min(p, q) in the mean over the positions of
    ids (1, T): Leviathan et al. 2023, corollary 3.6."""
    p, q = (distribution(each(ids)[0].double(), WARM) for each in (target, draft))
    return float(torch.minimum(p, q).sum(dim=-1).mean())


def speculated(target, make, prompts, tokens, gamma):
    return [run(target, make(), p, tokens, gamma, i) for i, p in enumerate(prompts)]


def counted(runs, expected: float) -> dict:
    """The share of proposals accepted, tokens and proposals a forward, the tokens that an
    `expected` share predicts for as many proposals, and by how many per cent these are missed, with
    the 95 % interval over forwards."""
    steps = [step for r in runs for step in r.steps]
    judged, accepted = sum(a + (a < g) for g, a in steps), np.array([a for _, a in steps])
    found, n = accepted.mean() + 1, len(steps)
    theory = np.nan
    if np.isfinite(expected):
        theory = np.mean([bench.speculative_tokens(expected, g) for g, _ in steps])
    off = 100 * abs(found / theory - 1)
    half = 196 * (accepted.std(ddof=1) if n > 1 else np.nan) / np.sqrt(n) / theory
    return {
        "alpha": accepted.sum() / max(judged, 1), "expected_alpha": expected,
        "tokens_a_forward": found, "theory": theory,
        "off_percent": off, "off_low": max(off - half, 0.0), "off_high": off + half,
        "proposed_a_forward": sum(g for g, _ in steps) / n,
    }  # fmt: skip


def forwards(target, draft, prompt, gamma, repeats, name, label) -> pd.DataFrame:
    """One cached step of the target, one forward that judges gamma + 1 tokens, one proposal."""
    ids = prompt.repeat(1, -(-(2 * gamma + 4) // prompt.shape[1]) + 1)
    steps = bench.step_times(target, ids, [1], [1, gamma + 1], past=gamma, repeats=3 * repeats)
    kept = steps[steps.phase == "several"]
    names = kept.tokens.map({1: "one token", gamma + 1: "judging"})
    times = kept.assign(name=names)[["name", "repeat", "seconds"]]
    if isinstance(draft, ModelDraft):
        own = bench.step_times(draft.model, ids, [1], [1], past=gamma, repeats=3 * repeats)
        proposal = own[own.phase == "several"].assign(name="proposal")
    else:
        proposal = bench.interleaved({"proposal": partial(draft.propose, ids, gamma)}, 3 * repeats)
    times = pd.concat([times, proposal[["name", "repeat", "seconds"]]])
    return times.assign(target=name, draft=label)


def results(samples: dict[str, pd.DataFrame], counts: pd.DataFrame, gamma: int = 4):
    """A row a target and draft: what was counted, the gain in time over processes, the gain that
    single forwards and the timed texts' counts predict, and the acceptance from which it pays."""
    rows = []
    for row in counts.to_dict("records"):
        timed = samples["speculation"][samples["speculation"].target == row["target"]]
        judging = samples["judging"]
        own = judging[(judging.target == row["target"]) & (judging.draft == row["draft"])]
        times = own.groupby("name").seconds.quantile(0.1)
        one, proposed = times["one token"], row["timed_proposed_a_forward"]
        calls = 1 if row["draft"] == "prompt lookup" else proposed
        judged = np.interp(1 + proposed, [1, gamma + 1], [one, times["judging"]])
        forward = (judged + calls * times["proposal"]) / one
        shown = ("target", "draft", "alpha", "expected_alpha", "tokens_a_forward", "theory")
        found = {name: row[name] for name in shown}
        found |= as_columns("measured_speedup", speedup(timed, "plain", row["draft"]))
        found["predicted_speedup"] = row["timed_tokens_a_forward"] / forward
        draft_cost, judge_cost = calls / gamma * times["proposal"] / one, times["judging"] / one
        found["pays_from_alpha"] = pays_from(gamma, draft_cost, judge_cost)
        rows.append(found)
    return pd.DataFrame(rows)


def pays_from(gamma: int, draft_cost: float, judge_cost: float) -> float:
    """The least acceptance at which speculation is not slower; NaN where there is none."""
    alphas, costs = np.linspace(0, 1, 101), (draft_cost, judge_cost)
    paying = (a for a in alphas if bench.speculative_gain(a, gamma, *costs) >= 1)
    return float(next(paying, np.nan))


def greedy_loops(model, prompts, tokens: int, longest: int = 20) -> pd.DataFrame:
    """How greedy text repeats itself: distinct tokens and the period of its second half (NaN: none
    up to `longest`), beside sampled text."""
    rows = []
    for how, sampling in (("greedy", Sampling(temperature=0.0)), ("sampled", WARM)):
        for i, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(i)
            ids = generate(model, prompt, tokens, sampling=sampling, generator=generator)
            new = ids[0, prompt.shape[1] :].tolist()
            rows.append((how, i, len(set(new)), period(new[len(new) // 2 :], longest)))
    return pd.DataFrame(rows, columns=["text", "prompt", "distinct_tokens", "period"])


def period(tokens, longest: int) -> float:
    """The least p with tokens[i] = tokens[i + p] for all i; NaN where none is up to `longest`."""
    for p in range(1, min(longest, len(tokens) // 2) + 1):
        if tokens[:-p] == tokens[p:]:
            return float(p)
    return np.nan


def int4(model):
    """The model's own int4 copy, its weights unpacked once: a draft that needs no training."""
    return accelerate(quantize(model, INT4), "dequantized")


def steady(counts: pd.DataFrame) -> pd.DataFrame:
    """Of drafts that always propose as many, by how many per cent the prediction is missed: draft,
    off_percent, low, high."""
    own = counts[counts.draft != "prompt lookup"]
    own = own.assign(draft=own.draft + " for " + own.target)
    own = own.rename(columns={"off_low": "low", "off_high": "high"})
    return own[["draft", "off_percent", "low", "high"]]


def circles(model, prompts, tokens: int) -> dict[str, float]:
    """Of `greedy_loops`: texts and their tokens, those that end in a circle when they are greedy
    and when they are sampled, how long the circles are in words (`length`, "" where there is
    none), and the median number of different tokens of both (`few`, `many`)."""
    texts = greedy_loops(model, prompts, tokens)
    found, periods = texts.groupby("text"), texts.period.dropna()
    ended, held = found.period.count(), found.distinct_tokens.median()
    unit = "token" if periods.max() == 1 else "tokens"
    return {
        "length": f" of {span(periods)} {unit}" if len(periods) else "",
        "texts": len(prompts),
        "tokens": tokens,
        **ended[["greedy", "sampled"]].to_dict(),
        "few": held["greedy"],
        "many": held["sampled"],
    }


def in_words(results: pd.DataFrame) -> str:
    """Which drafts pay, by their whole interval, in words; and what all of them give."""
    paying = results[results.low > 1]
    least, most = results.measured_speedup.min(), results.measured_speedup.max()
    given = f"{least:.2f} to {most:.2f} times the speed"
    if (results.high < 1).all():
        return f"every draft surely costs time: {given}"
    if not len(paying):
        return f"no draft surely pays: {given}"
    named = ", ".join(f"{row.draft} for {row.target}" for row in paying.itertuples())
    return f"of the drafts ({given}) what surely pays is {named}"


def beside_prediction(results: pd.DataFrame) -> dict[str, float]:
    """How far the measured speed-ups lie from what counts and single forwards predict: `off` in
    words, of `all` rows those whose interval leaves the prediction (`outside`), and the largest
    speed-up that is predicted (`most`)."""
    off = 100 * (results.measured_speedup / results.predicted_speedup - 1)
    predicted = results.predicted_speedup
    outside = (predicted < results.low) | (predicted > results.high)  # of no interval: neither
    least, most = sorted(off.abs())[0], off.abs().max()
    if (off < 0).all() or (off > 0).all():
        said = f"{least:.0f} to {most:.0f} % {'below' if off.max() < 0 else 'above'}"
    else:
        said = f"{-off.min():.0f} % below to {off.max():.0f} % above"
    return {"off": said, "most": predicted.max(), "outside": int(outside.sum()), "all": len(off)}


def best(results: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """The most that a draft gave, of `results`, with its interval."""
    row = results.loc[results.measured_speedup.idxmax()]
    return row.measured_speedup, (row.low, row.high)
