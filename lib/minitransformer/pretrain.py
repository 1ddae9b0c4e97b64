"""`torchrun --nproc-per-node 2 -m minitransformer.pretrain TEXT --out MODEL`: a model from a text's
tokens, trained by one process or by several.

TEXT is a store (`python -m minitransformer.corpus`), or a run's folder (reports/quick), of which
the training split is read. The same command goes on where a killed one stopped, from the checkpoint
beside MODEL."""

import argparse
import json
import sys
import warnings
from dataclasses import fields
from functools import partial
from pathlib import Path

from .bench import training_bytes, training_flops
from .checkpoint import SAVED, save
from .commands import ended
from .corpus import Batches, Corpus, Store
from .files import check_replaceable
from .model import ModelConfig, Transformer
from .train import RECIPES, initialize, plan, train
from .train.distributed import KINDS, group, whole

SAID = 20  # lines of progress


def main(argv=None) -> int:
    """Trains and writes the model's folder; 2 where that cannot be done, said in one line."""
    args = parse(argv)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # of views that nobody writes to

    def work():
        with group(args.parallel) as ranks:
            fit(args, ranks)

    return ended(work)


def fit(args, ranks) -> None:
    """What each process does; the first one tells of it and writes the model."""
    check_replaceable(args.out, SAVED, "save")  # not when all is trained
    ids, tokenizer = read(args.text)
    size, recipe = settings(args, tokenizer.get_vocab_size())
    say = partial(print, flush=True) if ranks.rank == 0 else lambda text: None
    update = size, -(-recipe.batch_size // ranks.size), recipe.window  # of one process
    held, work = sum(training_bytes(*update).values()) / 2**20, training_flops(*update) / 1e9
    say(f"an update of {update[1]} rows holds {held:,.1f} MiB, the model whole: {work:,.3g} GFLOP")
    model = initialize(Transformer(size), recipe.initialization, args.seed).to(ranks.device)
    batches = Batches(ids, seed=args.seed, **recipe.batches)
    checkpoint = args.out.with_name(f"{args.out.name}.train.pt")

    def tell(row):
        at = f"step {row['step']:,}"
        if "micro_batch" in row:
            say(f"{at}: the GPU's memory holds {row['micro_batch']} rows at a time")
        if row["step"] % max(recipe.steps // SAID, 1) == 0:
            loss, seen = f"loss {row['loss_nats']:.4f} nats", f"{row['tokens']:,} tokens"
            say(f"{at} of {recipe.steps:,}: {loss}, {seen}, {row['seconds']:.3g} s")

    options = {"checkpoint": checkpoint, "every": args.every, "on_step": tell, "ranks": ranks}
    train(model, batches.batch, recipe, **options)
    model = whole(model).cpu()
    if ranks.rank == 0:
        save(model, args.out, tokenizer)
    say(f"{args.out}: {recipe.steps:,} steps on {ranks.size} processes")


def read(folder: Path):
    """The ids to train on and their tokenizer."""
    if (folder / "store.json").is_file():
        store = Store(folder)
        return store, store.tokenizer
    corpus = Corpus.load(folder)
    return corpus.splits["train"], corpus.tokenizer


def settings(args, vocab_size: int):
    """Model and recipe with what `--set` changes; ValueError for a name that neither has."""
    given = dict(setting(text) for text in args.set)
    own = {f.name for f in fields(ModelConfig)} - {"vocab_size"}
    size = {name: given.pop(name) for name in own & given.keys()}
    return ModelConfig(vocab_size=vocab_size, **size), plan(args.recipe, **given)


def setting(text: str) -> tuple:
    """NAME=VALUE; the value as JSON, or the word that it is."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} is not NAME=VALUE: write --set steps=100")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m minitransformer.pretrain", description=__doc__)
    parser.add_argument("text", type=Path, help="a store, or a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder, to be written")
    parser.add_argument("--parallel", choices=KINDS, default="ddp", help="under torchrun")
    parser.add_argument("--recipe", choices=RECIPES, default="good")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of model or recipe"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
