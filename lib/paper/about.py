"""Who made this work and what it started from, as pyproject.toml says; nothing here is invented."""

import tomllib
from pathlib import Path


def about(root: Path) -> dict:
    """{name, authors, licence, repository, version, course, original} of the project at `root`, ""
    or {} where its pyproject.toml is silent.

    `original` is the report this work started from: {title, author, course, date}."""
    path = Path(root) / "pyproject.toml"
    said = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    project, ours = said.get("project", {}), said.get("tool", {}).get("paper", {})
    names = (person.get("name", "") for person in project.get("authors", ()))
    urls = {key.lower(): url for key, url in project.get("urls", {}).items()}
    return {
        "name": project.get("name", ""),
        "authors": ", ".join(filter(None, names)),
        "licence": project.get("license", ""),
        "repository": urls.get("repository") or urls.get("source") or "",
        "version": project.get("version", ""),
        "course": ours.get("course", ""),
        "original": ours.get("original", {}),
    }
