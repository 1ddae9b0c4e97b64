"""What a run's numbers do not say, as bullets of Markdown made from what it recorded."""

import math

import pandas as pd
from scipy.stats import t

from paper.numerals import fixed, number
from paper.record import tokens
from paper.words import literal


def source_limit(corpus: dict) -> str:
    """What the kind of corpus keeps the results from saying, in a sentence or two."""
    return {
        "language": "The language is synthetic, and its offset, recency and induction mechanisms "
        "favour attention by design: that a transformer beats n-grams there shows that it learns "
        "what is there, not that it would win as clearly on natural text. In exchange its floor "
        "is known.",
        "text": "One text, split by position: style and vocabulary drift between its splits, and "
        "no floor is known, so distances to the best possible cannot be given.",
        "uniform": "Independent uniform words hold nothing to learn: only the cost of not knowing "
        "that can be measured.",
    }.get(corpus.get("kind"), "What it holds is not recorded in this run.")


def limits(
    run: dict,
    corpus: dict,
    found: dict,
    formats: pd.DataFrame,
    luck: pd.DataFrame,
    gpu: pd.DataFrame | None = None,
) -> str:
    """The limits of a run: of scale, source, training, machine, profile, and of what looks alike.

    `found` are its facts (`headline.facts`), `formats` bench_quant.csv, `luck` spread.csv,
    `gpu` what was measured apart on one, where it was."""
    machine = run.get("machine", {})
    threads = run.get("threads") or "all"
    told = {
        "Scale": f"A model of {found['parameters']} parameters answers questions about mechanisms "
        "and arithmetic; in PyTorch its speeds are mostly overhead, and neither sizes nor ratios "
        "carry over to large models. The time model is meant to; how well it does, its bars say.",
        "Source": source_limit(corpus),
        "One training": one_training(luck),
        "One machine": f"Times of this run are of one {machine.get('cpu', 'unknown processor')} "
        f"({machine.get('cores', '?')} cores, {threads} threads used), which other work may have "
        "shared. Milliseconds are its own, and so are ratios: overhead, compute and bandwidth "
        "differ from one machine to the next. What was measured apart names its machine.",
        "Profile": _profile(run.get("profile", ""), run.get("side_by_side", {})),
        "Numbers that look alike": _alike(run, corpus, found, formats),
        "Not available": "The code, corpus generator, hashes and logbooks of the original report: "
        "its text is inferred, not repeated, and its milliseconds belong to another machine.",
        "No accelerator": "" if machine.get("gpu") else _accelerator(gpu),
    }
    return "\n".join(f"- **{name}.** {text}" for name, text in told.items() if text)


def _accelerator(gpu: pd.DataFrame | None) -> str:
    """What a run on a CPU leaves open of what the original report says of CUDA kernels."""
    if gpu is not None and len(gpu):
        return (
            "This run had none. What a GPU gives was measured apart, once and on one machine "
            "(appendix A6)."
        )
    return "What the original report says of CUDA kernels was not examined."


def one_training(luck: pd.DataFrame) -> str:
    """What intervals over the test text leave out: the luck of a training, by the repeated
    trainings in spread.csv, where there are two or more."""
    told = (
        "Every model that stands in the headline was trained once, and the intervals of perplexity "
        "are over the test text."
    )
    if len(luck) < 2:
        return told
    nats, n = float(luck["valid_nats"].std()), len(luck)
    least = math.sqrt(2) * nats * float(t.ppf(0.975, n - 1))  # of two single trainings
    return (
        f"{told} {len(luck)} shorter trainings of the headline model that differ in nothing but "
        f"their seed spread by {fixed(nats, 3)} nats (standard deviation), "
        f"{fixed(100 * math.expm1(nats), 1)} % of perplexity: a difference of less than "
        f"{fixed(least, 2)} nats between two models that were trained once is not surely theirs."
    )


def _profile(profile: str, side_by_side: dict) -> str:
    told = f"This is the {literal(profile)} run."
    if profile == "quick":
        told += (
            " Its models are trained for seconds: it tests the machinery, and its verdicts about "
            "quality are not those of a trained model."
        )
    if side_by_side:
        told += (
            f" Chapters ran side by side ({', '.join(map(literal, side_by_side))}; run.json says "
            "which beside which): what they timed, they timed on a machine that was busy with "
            "another."
        )
    return told


def _alike(run: dict, corpus: dict, found: dict, formats: pd.DataFrame) -> str:
    """Why the same quantity stands in the report with more than one value."""
    told = []
    if "format" in formats and "perplexity" in found:
        plain = formats.loc[formats["format"] == "fp32", "perplexity"]
        used = run.get("parameters", {}).get("quant_tokens", 0)
        if len(plain) and 0 < used < tokens({"splits": {"test": corpus["splits"]["test"]}}):
            told.append(
                f"The headline's perplexity, {found['perplexity']:value}, is of the whole test "
                f"split; formats are compared on its first {number(used)} tokens, where the same "
                f"model has {number(float(plain.iloc[0]))}."
            )
    if "floor" in found and corpus.get("floor_perplexity"):
        told.append(
            f"The floor in closed form is {number(corpus['floor_perplexity'])}; on the tokens of "
            f"the test split the oracle reaches {found['floor']:value}, and this is what models "
            "are held against."
        )
    return " ".join(told)
