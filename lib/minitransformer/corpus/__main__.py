"""`python -m minitransformer.corpus SHARD... --out STORE`: texts beyond memory as a store of ids.

A shard is .jsonl or a text, plain, .gz or .zst. The same command goes on where a killed one
stopped."""

import argparse
import os
import sys
from pathlib import Path

from tokenizers import Tokenizer

from .store import beginning, build
from .tokenizers import KINDS, train_tokenizer

SAMPLE = 8_000_000  # characters of the first shard that a tokenizer is trained on


def main(argv=None) -> int:
    """Builds the store and says what it holds; 2 where that cannot be done, said in one line."""
    args = parse(argv)
    try:
        store = build(
            args.shards,
            args.out,
            tokenizer_of(args),
            workers=args.workers,
            field=args.field,
            done=lambda name: print(name, flush=True),
        )
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(store):,} tokens of {len(store.shards)} shards")
    return 0


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
        return Tokenizer.from_file(str(path))
    if kept.is_file():
        return Tokenizer.from_file(str(kept))
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
