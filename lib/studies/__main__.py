"""`python -m studies --out reports/long --minutes 60`: the long arms of the ablations, see
`long_arms`."""

import argparse
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from . import long_arms

SAID_S = 10  # seconds between two lines of progress


def main(argv=None) -> int:
    """Runs and keeps them, and tells how far it is."""
    args = parse(argv)
    began, said = time.monotonic(), {}

    def done(stage, steps, of):
        now = time.monotonic()
        if now - said.get(stage, -SAID_S) >= SAID_S or steps == of:
            said[stage] = now
            print(f"{now - began:6.1f} s  {stage}: {steps:,} of {of:,} steps", flush=True)

    given = [f"--minutes {args.minutes:g}", f"--workers {args.workers}"]
    about = {
        "command": " ".join(["python -m studies", *given]),
        "commit": args.commit,
        "cpu": args.cpu,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    kept = long_arms.run(args.out, args.minutes, args.workers, steps=args.steps, done=done, **about)
    for group in ("arms", "recipes"):
        whole = long_arms.home(kept, list(dict.fromkeys(["default", *kept.made[group]])))
        print(f"{group}: {len(whole)} whole seeds of {len(whole.columns)} choices")
    return 0


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder that keeps the results")
    parser.add_argument("--minutes", type=float, required=True, help="when everything is over")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--steps", type=int, help="of a run, by default what the time allows")
    parser.add_argument("--commit", default="", help="of the library, to be kept")
    parser.add_argument("--cpu", default=platform.processor(), help="its name, to be kept")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
