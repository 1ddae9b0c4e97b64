"""`python -m paper <target> [--profile paper] [--set name=value] ...`: what the
make targets call.

Exit status: 0 done or current, 1 an error, 2 bad parameters, 130 interrupted, 138 a kernel died."""

import argparse
import difflib
import errno
import os
import re
import sys
import traceback
from pathlib import Path

from . import targets
from .derived import load
from .names import printable, short
from .parameters import ParameterError
from .project import Project

# Targets that are not a run, as `module:function`: loaded when asked for.
COMMANDS = {
    "verify-corpus": "paper.commands:verify_corpus",
    "test-idem": "paper.commands:test_idem",
    "pack": "paper.commands:make_pack",
    "verify": "paper.commands:verify",
    "publish": "paper.publish:publish",
    "picture": "paper.publish:take_picture",
    "notebooks": "paper.commands:execute_notebooks",
    "evidence": "paper.commands:record",
    "cache": "paper.commands:cache",
    "sweep": "paper.sweep:sweep",
}
WORD = 120  # characters of a word in a message, such as a path
REMEDIES = {
    errno.ENOSPC: "free some disk space and run the same command again; what was there before is "
    "whole",
    errno.EDQUOT: "your quota is used up: free some space and run the same command again",
    errno.EACCES: "make the folder writable, or run in a copy of the project",
    errno.EPERM: "make the folder writable, or run in a copy of the project",
    errno.EROFS: "make the folder writable, or run in a copy of the project",
}


def main(argv=None) -> int:
    """Runs a target; on an error prints one line that names the thing, the value and the remedy."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = arguments().parse_args(argv)
    try:
        perform(options)
        return 0
    except KeyboardInterrupt:
        kept = "what was finished is kept, and the same command goes on from there"
        print(f"\ninterrupted: {kept}", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            print(getattr(error, "details", "") or traceback.format_exc(), file=sys.stderr)
        print(f"error: {line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ParameterError) else getattr(error, "status", 1)


def perform(options) -> None:
    """Runs what `options.target` names: a command, or the chapters up to its own."""
    project = targets.of_model(Project.find(), options)
    if project.part and options.target not in project.targets:
        raise ParameterError(
            f"MODEL has no target {short(options.target)!r}: make report and make export take one"
        )
    known = [*project.targets, *COMMANDS]
    if options.target not in known:
        near = difflib.get_close_matches(options.target, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise ParameterError(f"target {short(options.target)!r} is unknown: {remedy}")
    params = targets.read(project, options)
    options.jobs = targets.at_once(options.jobs, "JOBS", "chapters")
    options.workers = targets.at_once(options.workers, "WORKERS", "points")
    if options.target in COMMANDS:
        load(COMMANDS[options.target])(project, params, options)
    else:
        targets.run(project, params, options.target, options.into, options.jobs)


def line(error: Exception) -> str:
    """The error as one line; a full disk and a refused file are named with their remedy."""
    text = printable(str(error)) or type(error).__name__
    text = re.sub(rf"\S{{{WORD},}}", lambda word: short(word[0], WORD), text)
    number = error.errno if isinstance(error, OSError) else None
    if "No space left" in text and "free some" not in text:  # with a remedy of its own
        number = errno.ENOSPC
    return f"{text}: {REMEDIES[number]}" if number in REMEDIES else text


def arguments() -> argparse.ArgumentParser:
    what = "Run the notebooks and render the report."
    parser = argparse.ArgumentParser(prog="python -m paper", description=what)
    add, many = parser.add_argument, {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    add("target", help="what to make, as make help lists it; or a chapter's name")
    add("--profile", default="paper", help="quick, or one of notebooks/profiles/ (default: paper)")
    add("--set", **many, help="a parameter; may be repeated")
    add("--jobs", help="chapters at once (default: as many as the cores allow)")
    add("--into", type=Path, help="the run's folder (default: reports/<run>)")
    start = "the folder a relative corpus path starts from"
    add("--caller", type=Path, default=Path.cwd(), help=start)
    add("--junit", type=Path, nargs="+", help="for evidence: pytest's JUnit files")
    add("--coverage", type=Path, help="for evidence: coverage's JSON file")
    add("--anyway", action="store_true", help="for publish: with gates that fail, as the page says")
    add("--clear", action="store_true", help="for cache: delete what it holds")
    add("--grid", type=Path, help="for sweep: the YAML file of values")
    add("--scheduler", help="for sweep: the address of a Dask cluster")
    add("--workers", help="for sweep: points at once, none of which measures times")
    debug = os.environ.get("DEBUG", "0") not in ("", "0")
    add("--debug", action="store_true", default=debug, help="print the whole traceback")
    return parser


if __name__ == "__main__":
    sys.exit(main())
