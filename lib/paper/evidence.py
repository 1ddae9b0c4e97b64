"""reports/evidence/<name>.json: what the last `make test`, `test-idem`, `verify` found, and of
which state of the project."""

import time
import xml.etree.ElementTree as xml
from pathlib import Path

from .files import read_record, write_json
from .project import Project
from .revision import state

NAMES = ("test", "test-idem", "verify", "verify-corpus")


def write(project: Project, name: str, passed: bool, **details) -> dict:
    """Records an outcome with the state of the project that it holds for."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {"name": name, "passed": bool(passed), **state(project.root), "when": when, **details}
    write_json(folder(project) / f"{name}.json", row)
    return row


def read(project: Project, now: dict | None = None) -> dict[str, dict | None]:
    """The evidence that holds of this state of the project (`now`), by name; None where it was not
    made of it."""
    now = now or state(project.root)
    rows = {name: read_record(folder(project) / f"{name}.json") or {} for name in NAMES}
    return {
        name: row if all(row.get(key, "") == value for key, value in now.items()) else None
        for name, row in rows.items()
    }


def folder(project: Project) -> Path:
    return project.reports / "evidence"


def from_pytest(project: Project, junit: list[Path], coverage: Path) -> dict:
    """The evidence of `make test` from pytest's JUnit files and coverage's JSON."""
    suites = [suite for path in junit for suite in xml.parse(path).getroot().iter("testsuite")]
    kinds = ("tests", "failures", "errors", "skipped")
    count = {kind: sum(int(suite.get(kind, 0)) for suite in suites) for kind in kinds}
    totals = (read_record(coverage) or {}).get("totals", {})
    percent = totals.get("percent_covered")
    clean = count["tests"] > 0 and not count["failures"] and not count["errors"]
    covered = {"coverage_percent": percent, "branches": totals.get("num_branches")}
    passed = clean and percent is not None and percent >= 97
    return write(project, "test", passed, **count, **covered)
