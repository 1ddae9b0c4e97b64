"""Who made this work and what it started from, as pyproject.toml says; nothing here is invented."""

import re
import tomllib
from pathlib import Path

from .revision import git

SHORT = re.compile(r"^(?:[^@/:]+@)?([^@/:]+):(?!/)")  # git@host:owner/name
HOST = r"(?:[a-z0-9-]+\.)+(?!(?:internal|lan|local)\b)[a-z]{2,}"
REMOTE = re.compile(rf"(https?|ssh|git)://(?:[^@/]*@)?({HOST})(:\d+)?(/.*?)(?:\.git)?/?")


def about(root: Path) -> dict:
    """{name, authors, licence, repository, version, course, original} of the project at `root`, ""
    or {} where its pyproject.toml is silent; the repository is then git's remote "origin".

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
        "repository": urls.get("repository")
        or urls.get("source")
        or address(git(Path(root), "remote", "get-url", "origin")),
        "version": project.get("version", ""),
        "course": ours.get("course", ""),
        "original": ours.get("original", {}),
    }


def address(remote: str) -> str:
    """Where a reader's browser finds a remote of git's, without the name and password that it may
    hold; "" of a folder, and of a machine that is no public one."""
    found = REMOTE.fullmatch(SHORT.sub(r"ssh://\1/", remote))
    if not found:
        return ""
    scheme, host, port, path = found.groups(default="")
    web = scheme.startswith("http")
    return f"{scheme}://{host}{port}{path}" if web else f"https://{host}{path}"
