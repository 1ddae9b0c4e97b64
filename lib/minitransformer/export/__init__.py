"""A model in the files that other runtimes read: Hugging Face, GGUF (llama.cpp) and ONNX.

Each format is a pure function from model and tokenizer to files, and refuses by name what it cannot
express. `export` writes any of them into a folder."""

from pathlib import Path

from ..fields import choice
from .gguf import KINDS as KINDS
from .gguf import to_gguf
from .huggingface import to_huggingface
from .loading import check_huggingface as check_huggingface
from .loading import from_huggingface as from_huggingface
from .onnx import to_onnx

FORMATS = ("hf", "gguf", "onnx")


def export(model, directory: str | Path, format: str, tokenizer=None, **options) -> Path:
    """Write `model` in one of `FORMATS` below `directory`, as hf/, model.gguf or onnx/; the path
    that was written.

    `options` are those of the format's own function. ValueError names what the format cannot
    express, ImportError the package that it needs."""
    directory = Path(directory)
    format = choice("format", format, FORMATS)
    if format == "gguf":
        return to_gguf(model, directory / "model.gguf", tokenizer, **options)
    write = to_huggingface if format == "hf" else to_onnx
    return write(model, directory / format, tokenizer, **options)
