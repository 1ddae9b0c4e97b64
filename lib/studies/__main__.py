"""`python -m studies --out reports/long --minutes 60`: the long arms of the ablations, see
`long_arms`. Every run that ends is kept: the same command goes on where the last one ended."""

import os
import sys
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial

from minitransformer.commands import ended
from minitransformer.fields import real, whole

from . import apart, kept_arms, long_arms
from .long_arms import FAMILIES, Design

SAID_S = 10  # seconds between two lines of progress


def main(argv=None) -> int:
    """Runs and keeps them, and tells how far it is; 2 where that cannot be done."""
    return ended(partial(work, parse(argv)))


def work(args) -> None:
    design = replace(Design(), **({"steps": whole("--steps", args.steps)} if args.steps else {}))
    began, said = time.monotonic(), {}

    def done(stage, steps, of):
        now = time.monotonic()
        if now - said.get(stage, -SAID_S) >= SAID_S or steps == of:
            said[stage] = now
            print(f"{now - began:6.1f} s  {stage}: {steps:,} of {of:,} steps", flush=True)

    given = [f"--family {args.family}", f"--minutes {args.minutes:g}", f"--workers {args.workers}"]
    given += [f"--steps {args.steps}"] * bool(args.steps)
    sitting = {"command": " ".join(["python -m studies", *given]), "commit": args.commit}
    at = args.out, args.family, real("--minutes", args.minutes), args.workers
    kept = long_arms.run(*at, design, done, apart.machine(args.cpu), **sitting)
    table = kept_arms.home(kept)
    print(f"{args.family}: {len(table)} whole seeds of {len(table.columns)} choices")


def parse(argv) -> Namespace:
    parser = apart.parser("studies", __doc__)
    parser.add_argument(
        "--family", choices=FAMILIES, default="arms", help="the ablations' arms, or recipes"
    )
    parser.add_argument("--minutes", type=float, required=True, help="when this sitting ends")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--steps", type=int, help="of a run, instead of the design's")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
