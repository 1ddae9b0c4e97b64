"""A model of the user's: read, and refused in one line before anything runs.

A folder is Hugging Face's, with safetensors, or one that `save` wrote."""

import shutil
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import psutil
from tokenizers import Tokenizer

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.corpus.needs import open_source
from minitransformer.export import check_huggingface, from_huggingface
from minitransformer.export.loading import read_json, read_tokenizer
from minitransformer.model import ModelConfig

CONTEXT = 2048  # longest sequence that a report computes: a position table is held in memory
COPIES = 3  # of the weights in float32 at the most: as read, packed for the engine, and being made


def check(p: dict, root: Path) -> list[str]:
    """ValueError or FileNotFoundError, one line, where the report of `p["model"]` on the text
    `p["corpus"]` could not be made: the folder, its tensors, tokenizer and text, memory, disk."""
    if not p["model"]:
        raise ValueError("no model is given: give MODEL=path/to/its/folder")
    if not p["corpus"]:
        raise ValueError("a model is judged on a text: give CORPUS=path/to/text.txt as well")
    folder = Path(root, p["model"])
    cfg = shape(folder)
    longest = min(cfg.context, CONTEXT)
    for name, tokens in (("window", p["window"]), ("prompt_tokens and new_tokens", spoken(p))):
        if tokens > longest:
            raise ValueError(f"{name} {tokens} pass context {longest} of this model: lower it")
    room(cfg, p, root)
    if "model_type" not in about(folder):
        load(folder)  # only so are its hashes known to be right
    texts(folder, p)
    return []


def spoken(p: dict) -> int:
    return p["prompt_tokens"] + p["new_tokens"]


def about(folder: Path) -> dict:
    """The folder's config.json."""
    return read_json(folder / "config.json", "a model's folder")


def shape(folder: Path) -> ModelConfig:
    """The configuration, tensors' names and shapes held against it where that needs no weight."""
    found = about(folder)
    if "model_type" in found:
        return check_huggingface(folder)
    if found.get("quantization"):
        raise ValueError(f"{folder} is quantized already: give the model that it was made of")
    try:
        return ModelConfig(**found["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no model of ours ({error}): give another") from error


def read(folder: Path):
    """The model in float32, with room for `CONTEXT` tokens at the most."""
    if "model_type" in about(folder):
        return from_huggingface(folder, context=CONTEXT)[0]
    return load(folder)[0].float()


def tokenizer_of(folder: Path) -> Tokenizer:
    found = read_tokenizer(folder)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no tokenizer.json, and a text cannot be read without it: save a fast "
            "tokenizer there"
        )
    return found


def texts(folder: Path, p: dict) -> dict[str, np.ndarray]:
    """Ids of the text: `fit`, its beginning, which methods may watch, and `test`, what follows."""
    where = Path(p["corpora_dir"]) if p["corpora_dir"] else None
    source = open_source(p["corpus"], "character", where, None, None, "", None, "")
    wanted = p["calibration_tokens"] + p["test_tokens"]
    text = "".join(source.texts.values())[: 16 * wanted]
    ids = np.array(tokenizer_of(folder).encode(text, add_special_tokens=False).ids, dtype=np.int64)
    size, n = shape(folder).vocab_size, min(len(ids), wanted)
    if n and ids.max() >= size:
        raise ValueError(
            f"{folder}: its tokenizer gives token {ids.max()} and the model has {size}: give the "
            "tokenizer that it was trained with"
        )
    cut = n * p["calibration_tokens"] // wanted
    least = max(p["window"], spoken(p))
    if n - cut <= least:
        raise ValueError(
            f"corpus {source.name!r} has {n} tokens of this tokenizer, of which {n - cut} are to "
            f"judge by, and {least + 1} are needed: give more text, or lower window"
        )
    return {"fit": ids[:cut], "test": ids[cut:n]}


def room(cfg: ModelConfig, p: dict, root: Path) -> None:
    """ValueError where memory or disk will not do, known from the shape alone."""
    weights = 4 * sum(bench.parameters(cfg).values())
    logits = 3 * 4 * 8 * p["window"] * cfg.vocab_size  # of eight windows, in three copies
    refuse("memory", psutil.virtual_memory().available, COPIES * weights + logits)
    for folder in {str(root), gettempdir()}:
        refuse("disk", shutil.disk_usage(folder).free, 2 * weights + 2**26)


def refuse(what: str, free: int, wanted: int) -> None:
    if free < wanted:
        raise ValueError(
            f"{free / 2**30:,.1f} GiB of {what} are free, and the report of this model takes about "
            f"{wanted / 2**30:,.1f} GiB: free some, or give a smaller model"
        )
