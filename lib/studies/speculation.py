"""Does a draft pay? Tokens a forward and time, beside what acceptance and single steps predict."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.decode import ModelDraft, PromptLookup, Sampling, generate, speculate
from minitransformer.quant import QuantScheme, accelerate, quantize

from .processes import speedup

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
        generator = torch.Generator().manual_seed(i)
        generate(target, prompt, tokens, sampling=WARM, generator=generator)


def measure(folder, prompts, tokens: int, repeats: int, gamma: int = 4) -> dict[str, pd.DataFrame]:
    """Samples of one process: `speculation` times each draft and plain decoding, interleaved;
    `judging` times the forwards; `counts` are of the texts, the same in every process."""
    prompts = [torch.from_numpy(np.asarray(p, dtype=np.int64))[None] for p in prompts]
    small = load(folder / "model-draft")[0]
    timed, judged, counts = [], [], []
    for name, stored in TARGETS.items():
        target = load(folder / stored)[0]
        ways = {"plain": partial(plain, target, prompts, tokens)}
        for draft, make in makers(small, target).items():
            texts = partial(speculated, target, make, prompts, tokens, gamma)
            ways[draft] = texts
            counts.append({"target": name, "draft": draft, **counted(texts(), gamma)})
            judged.append(forwards(target, make(), prompts[0], gamma, repeats, name, draft))
        timed.append(bench.interleaved(ways, repeats).assign(target=name))
    tables = {"speculation": timed, "judging": judged}
    return {name: pd.concat(each) for name, each in tables.items()} | {
        "counts": pd.DataFrame(counts)
    }


def speculated(target, make, prompts, tokens, gamma):
    return [run(target, make(), p, tokens, gamma, i) for i, p in enumerate(prompts)]


def counted(runs, gamma: int) -> dict:
    """Tokens and proposals a forward, the share accepted, and what that share predicts."""
    forwards, proposed = sum(r.forwards for r in runs), sum(r.proposed for r in runs)
    judged = sum(a + (a < g) for r in runs for g, a in r.steps)
    alpha = sum(r.accepted for r in runs) / max(judged, 1)
    tokens = sum(a + 1 for r in runs for _, a in r.steps)
    return {
        "alpha": alpha,
        "tokens_a_forward": tokens / forwards,
        "proposed_a_forward": proposed / forwards,
        "theory": bench.speculative_tokens(alpha, gamma),
        "distinct_tokens": int(np.median([len(set(r.ids[0].tolist())) for r in runs])),
    }


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
        lookup = partial(draft.propose, ids, gamma)
        proposal = bench.interleaved({"proposal": lookup}, 3 * repeats)
    times = pd.concat([times, proposal[["name", "repeat", "seconds"]]])
    return times.assign(target=name, draft=label)


def results(samples: dict[str, pd.DataFrame], gamma: int = 4) -> pd.DataFrame:
    """A row a target and draft: acceptance, tokens a forward, the gain in time over processes,
    the gain that counts and single forwards predict, and the acceptance from which it pays."""
    counts = samples["counts"].drop_duplicates(["target", "draft"]).drop(columns="process")
    rows = []
    for row in counts.to_dict("records"):
        timed = samples["speculation"][samples["speculation"].target == row["target"]]
        gain = speedup(timed, "plain", row["draft"])
        judging = samples["judging"]
        own = judging[(judging.target == row["target"]) & (judging.draft == row["draft"])]
        times = own.groupby("name").seconds.quantile(0.1)
        one = times["one token"]
        calls = 1 if row["draft"] == "prompt lookup" else row["proposed_a_forward"]
        wide = 1 + row["proposed_a_forward"]
        judged = np.interp(wide, [1, gamma + 1], [one, times["judging"]])
        forward = (judged + calls * times["proposal"]) / one
        costs = (times["proposal"] / one, times["judging"] / one)
        rows.append(
            {
                **row,
                "measured_speedup": gain["estimate"],
                "low": gain["low"],
                "high": gain["high"],
                "forward_time_ratio": forward,
                "predicted_speedup": row["tokens_a_forward"] / forward,
                "draft_time_ratio": costs[0],
                "pays_from_alpha": pays_from(gamma, calls / gamma * costs[0], costs[1]),
            }
        )
    return pd.DataFrame(rows)


def pays_from(gamma: int, draft_cost: float, judge_cost: float) -> float:
    """The least acceptance at which speculation is not slower; NaN where there is none."""
    for alpha in np.linspace(0, 1, 101):
        if bench.speculative_gain(alpha, gamma, draft_cost, judge_cost) >= 1:
            return float(alpha)
    return np.nan


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


def off_theory(results: pd.DataFrame) -> float:
    """By how many per cent tokens a forward miss what acceptance predicts, at worst, for drafts
    that always propose as many."""
    steady = results[results.draft != "prompt lookup"]
    return float(100 * (steady.tokens_a_forward / steady.theory - 1).abs().max())


def circles(model, prompts, tokens: int) -> dict[str, float]:
    """Of `greedy_loops`: texts, those that end in a circle when they are greedy and when they are
    sampled, and the median number of different tokens of both (`few`, `many`)."""
    found = greedy_loops(model, prompts, tokens).groupby("text")
    ended, held = found.period.count(), found.distinct_tokens.median()
    return {
        "texts": len(prompts),
        **ended[["greedy", "sampled"]].to_dict(),
        "few": held["greedy"],
        "many": held["sampled"],
    }


def best(results: pd.DataFrame) -> dict:
    """The draft that gains most time: its name and the gain."""
    row = results.loc[results.measured_speedup.idxmax()]
    return {"draft": row.draft, "gain": row.measured_speedup}
