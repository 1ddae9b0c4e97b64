"""`python -m minitransformer.corpus SHARD... --out STORE`: texts beyond memory as a store of ids.

A shard is .jsonl or a text, plain, .gz or .zst. The same command goes on where a killed one
stopped."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from ..commands import ended
from ..fields import whole
from ..files import read_tokenizer
from .store import beginning, build
from .tokenizers import KINDS, train_tokenizer

SAMPLE = 8_000_000  # characters of the first shard that a tokenizer is trained on


def main(argv=None) -> int:
    """Builds the store and says what it holds; 2 where that cannot be done, said in one line."""
    return ended(partial(make, parse(argv)))


def make(args) -> None:
    options = {"workers": whole("--workers", args.workers), "field": args.field}
    done = partial(print, flush=True)
    store = build(args.shards, args.out, tokenizer_of(args), done=done, **options)
    print(f"{args.out}: {len(store):,} tokens of {len(store.shards)} shards")


def tokenizer_of(args) -> Tokenizer:
    """The one of the store that is there, of the file that is named, or one trained on the first
    shard."""
    kept = args.out / "tokenizer.json"
    if args.tokenizer not in KINDS:
        path = Path(args.tokenizer)
        if not path.is_file():
            raise FileNotFoundError(
                f"tokenizer {args.tokenizer} is neither a file nor one of {', '.join(KINDS)}"
            )
        return read_tokenizer(path, "give another")
    if kept.is_file():
        return read_tokenizer(kept, "delete it, or name one")
    text = beginning(args.shards[0], SAMPLE, args.field)
    return train_tokenizer(args.tokenizer, text, args.vocab_size)


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m minitransformer.corpus", description=__doc__)
    parser.add_argument("shards", type=Path, nargs="+", help="texts, in their order")
    parser.add_argument("--out", type=Path, required=True, help="the store's folder")
    parser.add_argument("--tokenizer", default="bpe", help=f"{', '.join(KINDS)}, or a file")
    parser.add_argument("--vocab-size", type=int, help="of a tokenizer that is trained")
    parser.add_argument("--field", default="text", help="of a line of JSONL")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
