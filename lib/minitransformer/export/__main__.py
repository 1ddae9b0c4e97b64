"""`python -m minitransformer.export MODEL --format hf|gguf|onnx|all`: a saved model as files for
other runtimes.

MODEL is a folder that `save` wrote, or a Hugging Face one."""

import argparse
import sys
from functools import partial
from pathlib import Path

from ..checkpoint import load
from ..commands import FAULTS, ended, line
from . import FORMATS, KINDS, export, from_huggingface
from .loading import read_json


def main(argv=None) -> int:
    """Writes what is asked for and says what and how large; 2 where a format refused."""
    return ended(partial(write, parse(argv)))


def write(args) -> int:
    model, tokenizer = read(args.model)
    status = 0
    for format in FORMATS if args.format == "all" else (args.format,):
        options = {"kind": args.kind, "rewrite": args.rewrite} if format == "gguf" else {}
        try:
            path = export(model, args.out, format, tokenizer, **options)
        except (ImportError, *FAULTS) as error:
            print(f"{format}: {line(error)}", file=sys.stderr)
            status = 2
        else:
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            size = sum(p.stat().st_size for p in files)
            print(f"{format}: {path}, {size / 1e6:,.2f} MB")
    return status


def read(folder: Path):
    """A model and its tokenizer, of either library's folder."""
    about = read_json(folder / "config.json", "a model's folder, or run make train first")
    return from_huggingface(folder) if "model_type" in about else load(folder)


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m minitransformer.export", description=__doc__)
    parser.add_argument("model", type=Path, help="the model's folder")
    parser.add_argument("--format", choices=(*FORMATS, "all"), default="all")
    parser.add_argument("--out", type=Path, default=Path("export"), help="the folder to write to")
    parser.add_argument("--kind", choices=KINDS, help="of a GGUF file; its own codes, or f32")
    parser.add_argument(
        "--rewrite", action="store_true", help="GGUF: LayerNorm and ReLU as RMSNorm and SwiGLU"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
