"""What the chapters need of their parameters, known before anything runs.

The paper's runner and the guard cell of every notebook call `check`; pyproject.toml names it.
Single values are held against `LEAST` and `KNOWN`; what belongs together is asked of the library's
own dataclasses and of the rules below. ValueError, one line with thing, value and remedy."""

import math
import shutil
from pathlib import Path

from minitransformer import ModelConfig, Sampling
from minitransformer.corpus import LARGE, check_corpus
from minitransformer.corpus.streams import check_salt
from minitransformer.train import DEVICES, RECIPES, device_of

from . import interop, needs, own
from .peers import PEERS
from .presets import BUDGETS, SIZES

HUGE = 2**31  # counts and sizes beyond it are slips of the keyboard
LEAST = {  # the smallest value that the chapters can use; a list is held item by item
    **dict.fromkeys(("seed", "bench_seed", "lr", "top_k", "spread_runs", "short_steps"), 0),
    **dict.fromkeys(("short_window", "quant_tokens", "length_penalty"), 0),
    **dict.fromkeys(("width_runs", "text_sizes", "text_rounds"), 0),
    **dict.fromkeys(("steps", "twin_steps", "gqa_steps", "draft_steps", "spread_steps"), 1),
    **dict.fromkeys(("batch_size", "threads", "n_layers", "large_layers", "context"), 1),
    **dict.fromkeys(("repeats", "step_repeats", "certificate_tokens", "certificate_prompt"), 1),
    **dict.fromkeys(("certificate_texts", "stream_texts", "speculation_tokens", "beam_width"), 1),
    **dict.fromkeys(("beam_tokens", "requests", "qat_steps", "qat_batch", "smeared_steps"), 1),
    **dict.fromkeys(("scratch_steps", "quant_repeats", "layer_repeats", "calibration_tokens"), 1),
    **dict.fromkeys(("ablation_steps", "ablation_batch", "processes", "peer_shapes"), 1),
    **dict.fromkeys(("engine_shapes", "interop_tokens", "interop_repeats", "gpu_seconds"), 1),
    # an interval over runs needs two of them, a window's stride half of it
    **dict.fromkeys(("control_runs", "ablation_seeds", "lengths", "cache_tokens", "new_tokens"), 2),
    **dict.fromkeys(("stream_windows", "search_tokens", "ablation_window", "peer_tokens"), 2),
    **dict.fromkeys(("train_tokens", "ablation_tokens"), 513),
    **dict.fromkeys(("test_tokens", "ablation_test_tokens"), 130),
    "valid_tokens": 25,
    "text_steps": 12,
    "window": 8,
    "engine_tokens": 512,  # the shorter loop
    "train_window": 24,  # chapter 3 draws the last 20 tokens of a window
    "prompt_tokens": 4,  # unequal prompts in a batch are up to two shorter
    "draft_width": 32,
    "large_width": 64,
    "large_vocab": 2,
    "layer_sizes": 128,  # the narrowest matrix that has a kernel in every format
}
MOST = {
    "peer_shapes": 3,
    "engine_shapes": 5,
    "text_sizes": len(SIZES),
    "text_steps": 2000,
    "engine_tokens": 2**17,
    "peer_tokens": 400,  # after a prompt of 16, in a context of 512
    # further runs count on from it, and torch takes 64 bits
    **dict.fromkeys(("seed", "bench_seed"), 2**63 - 2**16),
    "threads": 512,
    **dict.fromkeys(("lr", "qat_lr", "control_lr"), 1.0),
    "ablation_window": 512,  # half the context of every arm
    "ablation_seeds": 100,
    **dict.fromkeys(("control_runs", "spread_runs", "width_runs"), 1000),
}
ABOVE_ZERO = ("qat_lr", "control_lr")
KNOWN = {
    "recipe": tuple(RECIPES),
    "device": DEVICES,
    "peers": ("all", *PEERS),
    "interop": ("all", *interop.PEERS),
    "text_budgets": ("all", *BUDGETS),
    "bits": (32, 8, 4),
    "method_bits": (8, 4, 3, 2),
    "tokenizer": ("", "word", "character", "bpe"),
    "ablation_language": ("minimal", "small", "large"),
}
INCREASING = ("lengths", "layer_sizes")
SHAPE = ("d_model", "n_heads", "n_layers", "context", "position")


def check(params: dict, stages: tuple | None = None, folder: Path | None = None) -> list[str]:
    """What is worth saying of `params`, in sentences.

    ValueError where the chapters `stages` (None: all) could not use them: any value out of its
    range, whichever chapter has it; values that do not fit together; a text too small for what is
    asked of it; a disk, that of `folder`, with too little room."""
    stages = needs.ORDER if stages is None else stages
    for name, value in params.items():
        single(name, value)
    if "model" in params:  # the chapters about a model of the user's
        return own.check(params, Path(folder or "."))
    for rule, whose in RULES.items():
        if not whose or set(whose) & set(stages):
            try:
                rule(params)
            except KeyError:
                continue  # a project without that parameter has not what the rule is about
    try:
        said = corpus(params, needs.tokens(params, stages))
        if folder is not None:
            disk(params, Path(folder))
    except KeyError:  # a project without these parameters has no such chapters
        return []
    return said


def single(name: str, value) -> None:
    """One parameter by itself: its range, its known values, a list's order."""
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not value:
        raise ValueError(f"{name} is empty: give at least one value, as in [{example(name)}]")
    for item in items:
        if name in KNOWN and item not in KNOWN[name]:
            choices = ", ".join(str(known) for known in KNOWN[name] if known != "")
            raise ValueError(f"{name} {item!r} is unknown: choose of {choices}")
        if isinstance(item, (int, float)):
            between(name, item)
    if len(set(items)) < len(items):
        raise ValueError(f"{name} {value} names a value twice: give each once")
    if name in INCREASING and items != sorted(items):
        raise ValueError(f"{name} {value} is not in order: give {sorted(items)}")


def between(name: str, value) -> None:
    least, most = LEAST.get(name, -math.inf), MOST.get(name, HUGE)
    if name in ABOVE_ZERO and not value > 0:
        raise ValueError(f"{name} {value} is not above 0: give a learning rate up to {most:g}")
    if not least <= value <= most:
        wanted = f"at least {least:g}" if not value >= least else f"at most {most:g}"
        raise ValueError(f"{name} {value} is out of range: give {wanted}")


def example(name: str) -> str:
    return "4" if name in KNOWN else str(max(LEAST.get(name, 1), 128))


def language(p):
    """Seed, salt and tokenizer of the synthetic language."""
    check_salt(p["salt"])
    if not p["corpus"] and p["tokenizer"] not in ("", "word"):
        raise ValueError(
            f"tokenizer {p['tokenizer']!r} does not fit the synthetic language, which has words: "
            "leave it empty, or give a text with corpus"
        )


def device(p):
    """Where models are trained."""
    device_of(p["device"])


def shape(p):
    """The headline model, its draft, and the larger model of the time model."""
    whole = ModelConfig(**{name: p[name] for name in SHAPE if name in p})
    if "draft_width" in p:
        multiple(p, "draft_width", 32)
        ModelConfig(d_model=p["draft_width"], n_heads=p["draft_width"] // 32, context=whole.context)


def larger(p):
    multiple(p, "large_width", 64)
    within(p, "prompt_tokens", "and 51 more", p["prompt_tokens"] + 51, 512, "lower prompt_tokens")
    ModelConfig(vocab_size=p["large_vocab"], d_model=p["large_width"], n_layers=p["large_layers"])


def windows(p):
    """Training windows fit the context, and the short ones of the warm-up the training window."""
    within(p, "train_window", "", p["train_window"], p["context"], "lower it or raise context")
    if p["short_steps"] and not 1 <= p["short_window"] <= p["train_window"]:
        raise ValueError(
            f"short_window {p['short_window']} does not fit train_window {p['train_window']}: give "
            f"1 to {p['train_window']}, or short_steps 0"
        )


def sampling(p):
    Sampling(temperature=p["temperature"], top_k=p["top_k"] or None, top_p=p["top_p"])


def samples(p):
    """Chapter 3 continues a prompt: 40 characters by 160 others, 8 words by 24."""
    characters = p["corpus"] and p["tokenizer"] in ("", "character")
    given, new = (40, 160) if characters else (8, 24)
    if p["context"] < given + new:
        raise ValueError(
            f"context {p['context']} is too short for samples of {given} and {new} more tokens: "
            f"give at least {given + new}"
        )


def generated(p):
    """A prompt and what is generated after it fit the context."""
    fits(p, "lengths")
    for name in ("certificate_tokens", "speculation_tokens"):
        fits(p, name, "certificate_prompt")
    longest, remedy = p["certificate_prompt"] + 12, "lower certificate_prompt"  # beams, and a look
    within(p, "certificate_prompt", "and 12 more", longest, p["context"], remedy)
    if p["context"] < 64:
        raise ValueError(f"context {p['context']} is too short for the beams of chapter 4: give 64")


def appendix(p):
    """So do beams and batches."""
    fits(p, "beam_tokens")
    if p["context"] < 64:
        raise ValueError(f"context {p['context']} is too short for batches and serving: give 64")


def runtimes(p):
    """A prompt and what the runtimes say after it fit the context."""
    fits(p, "interop_tokens")


def fits(p, name: str, before: str = "prompt_tokens") -> None:
    longest = max(p[name]) if isinstance(p[name], list) else p[name]
    prompt, told = p[before], f"after {before} {p[before]}"
    if prompt >= p["context"]:
        within(p, before, "and one more", prompt + 1, p["context"], "lower it")
    remedy = f"give at most {p['context'] - prompt}, or raise context"
    within({name: longest}, name, told, longest + prompt, p["context"], remedy)


def streamed(p):
    n, W, texts = p["test_tokens"], p["train_window"], p["stream_texts"]
    if not p["corpus"] and min(p["stream_windows"] * W, (n - 1) // texts) < 2 * W:
        raise ValueError(
            f"test_tokens {n} are too few for stream_texts {texts} of two windows (train_window "
            f"{W}): give {2 * W * texts + 1} or more, or lower stream_texts"
        )


def beams(p):
    if p["beam_width"] > 256:
        raise ValueError(f"beam_width {p['beam_width']} is out of range: give at most 256")


def single_run(p):
    if p["width_runs"] == 1:
        raise ValueError("width_runs 1 is a single run, which has no spread: give 0, or 2 or more")


RULES = {  # rule -> the chapters it is about; () for what no model could have
    language: (),
    device: (),
    shape: (),
    larger: (),
    sampling: (),
    beams: (),
    single_run: (),
    windows: ("02-train", "03-eval", "04-kv-bench", "05-quant-bench", "A2-quant"),
    samples: ("03-eval",),
    generated: ("04-kv-bench",),
    appendix: ("A1-cache",),
    runtimes: ("07-interop",),
    streamed: ("04-kv-bench",),
}


def multiple(p, name: str, unit: int) -> None:
    if p[name] % unit:
        near = max(unit, round(p[name] / unit) * unit)
        raise ValueError(f"{name} {p[name]} is no multiple of {unit}: the nearest is {near}")


def within(p, name: str, told: str, tokens: int, limit: int, remedy: str) -> None:
    if tokens > limit:
        what = f"{name} {p[name]} {told}".strip()
        raise ValueError(f"{what} passes context {limit} ({tokens} tokens): {remedy}")


def corpus(p, asked: dict) -> list[str]:
    """What the chapters ask of the corpus: a generated one can be given more tokens, a text must be
    long and varied enough. Says the encoding of a text that is not UTF-8."""
    if p["corpus"]:
        wanted = {split: count for split, (count, _) in asked.items()}
        folder = Path(p["corpora_dir"]) if p.get("corpora_dir") else None
        found = check_corpus(p["corpus"], p["tokenizer"], wanted, corpora_dir=folder)
        if found is None or found.encoding in ("utf-8", "ascii"):
            return []
        return [f"corpus {found.name} is read as {found.encoding}"]
    for split, (count, why) in asked.items():
        name = f"{split}_tokens"
        if "ablation" not in why and p[name] < count:
            raise ValueError(f"{name} {p[name]} are too few for {why}: give {count} or more")
    return []


def disk(p, folder: Path) -> None:
    """Room for what a run leaves: a token takes about 30 bytes (its text, its id, its oracle), a
    weight four of its own and twelve in its checkpoint, figures and notebooks 64 MiB."""
    width, layers = max(p["d_model"], p["draft_width"]), max(p["n_layers"], 2)
    weights = 6 * (2 * LARGE.vocab_size * width + 12 * layers * width**2)  # of six models
    corpus_tokens = p["train_tokens"] + p["valid_tokens"] + p["test_tokens"]
    wanted = 30 * corpus_tokens + 16 * weights + 64 * 2**20
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise ValueError(
            f"{free / 2**20:,.0f} MiB are free on the disk of the project, and this run leaves "
            f"about {wanted / 2**20:,.0f} MiB: free some, or lower train_tokens or d_model"
        )
