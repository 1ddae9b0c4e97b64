"""reports/evidence/<name>.json: what the last `make test`, `test-idem`, `verify` found, and at
which commit."""

import time
import xml.etree.ElementTree as xml
from pathlib import Path

from .files import read_json, write_json
from .project import Project
from .provenance import commit

NAMES = ("test", "test-idem", "verify", "verify-corpus")


def write(project: Project, name: str, passed: bool, **details) -> dict:
    """Records an outcome with the commit it holds for."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {"name": name, "passed": bool(passed), **commit(project.root), "when": when, **details}
    write_json(folder(project) / f"{name}.json", row)
    return row


def read(project: Project) -> dict[str, dict | None]:
    """The evidence that holds at this commit, by name; None where it was not made at it."""
    head = commit(project.root)["commit"]
    found = {}
    for name in NAMES:
        path = folder(project) / f"{name}.json"
        row = read_json(path) if path.is_file() else None
        found[name] = row if row and row["commit"] == head else None
    return found


def folder(project: Project) -> Path:
    return project.reports / "evidence"


def from_pytest(project: Project, junit: list[Path], coverage: Path) -> dict:
    """The evidence of `make test` from pytest's JUnit files and coverage's JSON."""
    suites = [suite for path in junit for suite in xml.parse(path).getroot().iter("testsuite")]
    count = {
        key: sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    }
    totals = read_json(coverage)["totals"] if Path(coverage).is_file() else {}
    percent = totals.get("percent_covered")
    passed = (
        count["tests"] > 0
        and not count["failures"]
        and not count["errors"]
        and percent is not None
        and percent >= 97
    )
    return write(
        project,
        "test",
        passed,
        **count,
        coverage_percent=percent,
        branches=totals.get("num_branches"),
    )
