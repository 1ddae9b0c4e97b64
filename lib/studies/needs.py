"""How many tokens of each split the chapters ask for at given parameters.

One row a chapter: split -> (tokens, the parameter or the cell that asks). Beside the notebooks, so
that a text is measured before anything is trained on it."""


def data(p):
    for split in ("train", "test"):
        yield split, 129, "passages of 64 tokens"
    yield "valid", 2, "a validation loss"


def train(p):
    yield "train", 4 * 128 + 1, "the first loss of four windows of 128"
    yield "train", p["train_window"] + 1, f"train_window {p['train_window']}"
    yield "valid", p["train_window"] + 1, f"train_window {p['train_window']}"


def evaluate(p):
    yield "test", 2 * p["train_window"] + 1, f"train_window {p['train_window']}"
    yield "test", 2 * 40 + 1, "two prompts of up to 40 tokens"


def cache(p):
    yield "test", max(p["lengths"]) + p["prompt_tokens"] + 1, f"lengths up to {max(p['lengths'])}"
    yield "test", p["prompt_tokens"] + 129, f"prompt_tokens {p['prompt_tokens']} and 128 more"
    yield "test", p["certificate_prompt"] + 1, f"certificate_prompt {p['certificate_prompt']}"
    texts, window = p["stream_texts"], p["train_window"]
    why = f"stream_texts {texts} of two windows (train_window {window})"
    yield "test", 2 * window * texts + 1, why


def appendix(p):
    yield "test", 2 * p["train_window"] + 1, f"two windows (train_window {p['train_window']})"
    yield "test", max(p["prompt_tokens"] + 1, 64), f"prompt_tokens {p['prompt_tokens']}"


def quantization(p):
    window = min(p["train_window"], p["context"])
    yield "train", window + 1, f"train_window {p['train_window']}"
    yield "test", window + 1, f"train_window {p['train_window']}"


def ablations(p):
    longest = max(p["ablation_window"], 64)
    yield "train", longest + 1, f"windows of {longest} tokens"
    yield "valid", p["ablation_window"] + 1, f"ablation_window {p['ablation_window']}"
    yield "test", 2 * max(p["ablation_window"], 65), f"ablation_window {p['ablation_window']}"


def interop(p):
    yield "test", p["prompt_tokens"] + 1, f"prompt_tokens {p['prompt_tokens']}"


CHAPTERS = {
    "01-data": data,
    "02-train": train,
    "03-eval": evaluate,
    "04-kv-bench": cache,
    "05-quant-bench": quantization,
    "06-ablations": ablations,
    "07-interop": interop,
    "A1-cache": appendix,
    "A2-quant": quantization,
}
ORDER = tuple(CHAPTERS)


def tokens(p, stages=ORDER) -> dict[str, tuple[int, str]]:
    """Split -> (tokens, what asks for them), the largest need among the chapters `stages`; `p` maps
    every parameter of theirs to its value."""
    most = {}
    for stage in stages:
        for split, count, why in CHAPTERS[stage](p) if stage in CHAPTERS else ():
            if count > most.get(split, (0, ""))[0]:
                most[split] = (count, f"{why} in {stage}")
    return most
