"""`python -m paper <target> [--profile paper] [--set name=value] ...`: what the
make targets call.

Exit status: 0 done or current, 1 an error, 2 bad parameters, 130 interrupted, 138 a kernel died.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

from . import parameters, targets
from .project import STAGES, Project
from .runner import KernelDied


def main(argv=None) -> int:
    """Runs a target; on an error prints one line that names the thing, the value and the remedy."""
    options = arguments().parse_args(argv)
    try:
        project = Project.find()
        params = targets.read(project, options)
        targets.TARGETS.get(options.target, targets.run)(project, params, options)
        return 0
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what was finished is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        if options.debug:
            print(getattr(error, "details", "") or traceback.format_exc(), file=sys.stderr)
        print(f"error: {line(error)}", file=sys.stderr)
        return (
            2
            if isinstance(error, parameters.ParameterError)
            else 138
            if isinstance(error, KernelDied)
            else 1
        )


def line(error: Exception) -> str:
    """The error as one line; a full disk and a refused file are named with their remedy."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno == 28 or "No space left" in text:
        return f"{text}: free some disk space and run the same command again; what was there before is whole"
    if isinstance(error, OSError) and error.errno in (13, 30):
        return f"{text}: make the folder writable, or run in a copy of the project"
    return text


def arguments() -> argparse.ArgumentParser:
    what = "Run the notebooks and render the report."
    parser = argparse.ArgumentParser(prog="python -m paper", description=what)
    parser.add_argument(
        "target", choices=sorted({*targets.TARGETS, *targets.UP_TO, *STAGES}), help="what to make"
    )
    parser.add_argument(
        "--profile",
        default="paper",
        help="quick, or a file of notebooks/profiles/ (default: paper)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter; may be repeated",
    )
    parser.add_argument("--into", type=Path, help="the run's folder (default: reports/<run>)")
    parser.add_argument(
        "--caller",
        type=Path,
        default=Path.cwd(),
        help="the folder a relative corpus path starts from",
    )
    parser.add_argument("--junit", type=Path, nargs="+", help="for evidence: pytest's JUnit files")
    parser.add_argument("--coverage", type=Path, help="for evidence: coverage's JSON file")
    debug = os.environ.get("DEBUG", "0") not in ("", "0")
    parser.add_argument(
        "--debug", action="store_true", default=debug, help="print the whole traceback"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
