"""`make sweep GRID=file.yaml`: a run for every point of a grid of parameters, and one table of all.

The grid is `name: [values]` lines, as of a profile; `profile` is a name like any other, `target` is
what each point makes (report). Every point is a run of its own in reports/sweep-<grid>/, made by a
process of its own, so that one that fails, or dies, leaves the others alone; what is current is not
made again. As many run at once as WORKERS says, by default as the cores allow; but those that
measure times one after another. With the extra `scale`, SCHEDULER=tcp://host:port has a Dask
cluster run the points, on machines that see this folder at the same place."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

import pandas as pd

from . import cluster, targets
from .claims import audited
from .files import digest, read_json, write_text
from .html import STYLES, TEMPLATE
from .names import printable, short, slug
from .parameters import ParameterError, read_profile
from .progress import clock
from .project import Project
from .tables import restyle
from .variants import streamed

NAME_BYTES = 60  # of what the folder of a point says of it
WIDE = "main { margin: 2rem; overflow-x: auto } th, td { overflow-wrap: normal }"  # of the table


@dataclass(frozen=True, eq=False)
class Point:
    """One choice of every value: what its process is given, where, and how many may run at once."""

    chosen: dict[str, str]
    command: tuple[str, ...]
    run_dir: Path
    beside: int

    def __str__(self):
        return " ".join(f"{name}={short(value)}" for name, value in self.chosen.items())


def sweep(project: Project, params: dict, options) -> None:
    """Runs every point and writes the table after each; RuntimeError names those that failed, when
    all have been tried."""
    if not options.grid:
        raise ParameterError("sweep needs a grid: give GRID=file.yaml (--grid file.yaml)")
    path = options.caller / options.grid
    if not path.is_file():
        raise ParameterError(f"grid {short(str(options.grid))} does not exist: give a YAML file")
    folder = project.reports / f"sweep-{slug(path.stem, NAME_BYTES)}"
    every = points(project, read_profile(path), folder, options)
    ended: dict[Point, str] = {}  # "" or what was wrong
    began = time.monotonic()
    for point, fault in outcomes(project, every, options.scheduler):
        ended[point] = fault
        seconds = (time.monotonic() - began) * (len(every) / len(ended) - 1)
        left = f"; about {clock(seconds)} left" if len(ended) < len(every) else ""
        print(f"[{len(ended)}/{len(every)}] {point}: {fault or 'done'}{left}", flush=True)
        write_table(folder, [(each, ended.get(each)) for each in every])
    where = project.relative(folder)
    if failed := [point for point in every if ended[point]]:
        told = "; ".join(f"{point}: {ended[point]}" for point in failed[:3])
        raise RuntimeError(
            f"{len(failed)} of {len(every)} points failed ({told}{'; …' if failed[3:] else ''}): "
            f"the others are in {where}/index.html, and the same command tries these again"
        )
    print(f"{where}/index.html, {where}/sweep.csv")


def points(project: Project, grid: dict, folder: Path, options) -> list[Point]:
    """The points in the order of the grid, the last name changing first. ParameterError for what no
    run could be given: before anything runs."""
    grid = {name: value if isinstance(value, list) else [value] for name, value in grid.items()}
    target = grid.pop("target", ["report"])
    if len(target) != 1 or target[0] not in project.targets:
        raise ParameterError(
            f"target {short(str(target))} of the grid is not one of {', '.join(project.targets)}"
        )
    if empty := [name for name, values in grid.items() if not values]:
        raise ParameterError(f"{empty[0]} of the grid has no values: give name: [a, b]")
    every, found = list(product(*([(name, text(v)) for v in grid[name]] for name in grid))), []
    for values in every:
        chosen = dict(values)
        given = {n: v for n, v in chosen.items() if n != "profile"}
        settings = [*options.set, *(f"{name}={value}" for name, value in given.items())]
        profile = chosen.get("profile", options.profile)
        asked = Namespace(profile=profile, set=settings, caller=options.caller)
        params, last = targets.read(project, asked), project.targets[target[0]]  # or it cannot be
        needed = [*project.upstream(last), last]
        rules = targets.side_by_side(project, params, needed, options.workers)
        name = f"{slug(' '.join(chosen.values()), NAME_BYTES)}-{digest([settings, profile])[:8]}"
        words = [sys.executable, "-m", "paper", target[0], "--profile", profile]
        words += ["--into", str(folder / name), "--caller", str(options.caller)]
        beside = min(len(every), rules.jobs, rules.room if rules.timed else rules.jobs)
        jobs = options.jobs or int(beside > 1 and not options.scheduler)  # 0: as many as can be
        words += ["--jobs", str(jobs)] if jobs else []
        words += [word for setting in settings for word in ("--set", setting)]
        found.append(Point(chosen, tuple(words), folder / name, beside))
    return found


def text(value) -> str:
    """A value of the grid as `--set` takes it; that of a list parameter is a list itself."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def outcomes(project: Project, every: list[Point], scheduler) -> Iterator[tuple[Point, str]]:
    """Every point with "" or what was wrong, as they end: some at once, or on a cluster."""
    root, workers = str(project.root), min(point.beside for point in every)
    if scheduler:
        yield from cluster.results(scheduler, attempt, {p: (p.command, root) for p in every})
        return
    tell = sys.stdout if workers == 1 else None  # the lines of several would mix
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(attempt, point.command, root, tell): point for point in every}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an interrupt nothing more begins


def attempt(command, root: str, tell=None) -> str:
    """Runs a point to its end, once more if it was killed: "", or what was wrong, the last line of
    its process, whose lines are passed on to the stream `tell`."""

    def told(line):
        if tell is not None:
            print(f"  {line}", file=tell, flush=True)

    status, last = streamed(command, root, {}, told)
    if status == -9:  # of SIGKILL, as where memory ends: what was finished is not made again
        status, last = streamed(command, root, {}, told)
    return "" if not status else printable(last).removeprefix("error: ") or f"exit status {status}"


def write_table(folder: Path, ended: list[tuple[Point, str | None]]) -> None:
    """sweep.csv, with all that was measured, and index.html, with the headline of each run."""
    brief = pd.DataFrame([row(point, fault) for point, fault in ended])
    full = [
        row(point, fault) | (measured(point.run_dir) if fault == "" else {})
        for point, fault in ended
    ]
    write_text(folder / "sweep.csv", pd.DataFrame(full).to_csv(index=False, lineterminator="\n"))
    pages = {p.run_dir.name for p, o in ended if o == "" and (p.run_dir / "index.html").is_file()}
    shown = restyle(
        brief.to_html(index=False, na_rep="–", border=0),
        links={name: f"{name}/index.html" for name in pages},
    )
    style = "".join((TEMPLATE / name).read_text(encoding="utf-8") for name in STYLES)
    title = escape(f"{folder.name}: {len(ended)} runs")
    write_text(
        folder / "index.html",
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{style}{WIDE}</style></head>\n<body><main><h1>{title}</h1>\n{shown}\n"
        '<p><a href="sweep.csv">sweep.csv</a> has every measured claim.</p>\n'
        "</main></body>\n</html>\n",
    )


def row(point: Point, fault: str | None) -> dict:
    """What the table says of a point: its values, how it ended (None: it has not), and its headline
    numbers."""
    state = "waiting" if fault is None else "failed" if fault else "done"
    found = {**point.chosen, "run": point.run_dir.name, "state": state}
    found["fault"] = short(fault or "", 120)
    tiles = read_json(point.run_dir / "headline.json", []) if state == "done" else []
    return found | {tile["label"]: tile["value"] for tile in tiles}


def measured(run_dir: Path) -> dict:
    """The claims of a run that are numbers, by id."""
    rows = read_json(run_dir / "claims.json", [])
    return {
        claim["id"]: claim["measured"]
        for claim in rows
        if isinstance(claim.get("measured"), (int, float)) and not audited(claim)
    }
