"""What a run recorded: claims, artefacts, and the command that makes it again."""

import shlex
from pathlib import Path

import pandas as pd

from .claims import audited
from .files import read_json
from .numerals import number
from .parameters import ParameterError, resolve
from .project import Project

UNSAID = ("profile", "run_dir", "corpus", "corpus_sha256")

COMPARED = (  # the programs that the chapters hold beside this work, where they are installed
    "transformers",
    "onnxruntime",
    "onnx",
    "xllamacpp",
    "gguf",
    "torchao",
    "optimum-quanto",
    "bitsandbytes",
)


def read_claims(run: Path) -> list[dict]:
    """The claims of every chapter that has run, in the chapters' order."""
    paths = [Path(run) / "claims" / f"{name}.json" for name in Project.find(run).chapters]
    return [row for path in paths for row in read_json(path, [])]


def read(run: Path, name: str) -> dict:
    """An artefact in JSON, {} where the run has none."""
    return read_json(Path(run) / name, {})


def table(run: Path, name: str) -> pd.DataFrame:
    """A CSV of the run; an empty table where it has none."""
    path = Path(run) / name
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def made_by(project: Project, run: dict) -> str:
    """The command that makes a run again, from its run.json: its profile, and what was given
    besides it."""
    profile, used = run.get("profile"), run.get("parameters", {})
    if not profile:
        return "make report"
    try:
        usual = resolve(project.notebooks, profile)
    except ParameterError:  # a profile that is gone since
        usual = {}
    given = [f"corpus={used['corpus']}"] if used.get("corpus") else []
    unsaid = (*UNSAID, *project.folders)
    given += [
        f"{name}={value if isinstance(value, str) else str(value).replace(' ', '')}"
        for name, value in sorted(used.items())
        if name not in unsaid and name in usual and value != usual[name]
    ]
    if not given:
        return f"make report PROFILE={profile}"
    settings = " ".join(f"--set {shlex.quote(item)}" for item in given)
    return f"python -m paper report --profile {profile} {settings}"


def provenance(project: Project, run: dict, past: dict, corpus: dict) -> pd.DataFrame:
    """What made a run: the command, the state of the project, the machine, versions, the text."""
    machine, versions = run.get("machine", {}), run.get("versions", {})
    changed = " with changes" if past["dirty"] else ""
    facts = {
        "made by": made_by(project, run),
        "commit": past["commit"][:12] + changed,
        "processor": machine.get("cpu"),
        "cores": machine.get("cores"),
        "threads used": run.get("threads"),
        "instruction set used": machine.get("capability"),
        "accelerator": machine.get("gpu") or "none",
        "system": machine.get("system"),
        "Python": machine.get("python"),
        "libraries": _versions(versions, set(versions) - {*COMPARED}),
        "compared with": _versions(versions, {*COMPARED}),
        "programs": ", ".join(f"{name}: {v}" for name, v in run.get("programs", {}).items()),
        "corpus": corpus.get("name"),
        "corpus SHA-256": corpus.get("sha256"),
        "corpus tokens": tokens(corpus),
    }
    told = [(what, v if isinstance(v, str) else number(v)) for what, v in facts.items() if v]
    return pd.DataFrame(told, columns=["what", "value"])


def _versions(versions: dict, chosen: set) -> str:
    """The chosen names with their versions; those that are not installed are left out."""
    return ", ".join(f"{name} {v}" for name, v in versions.items() if v and name in chosen)


def tokens(corpus: dict) -> int:
    """The tokens of all splits."""
    return sum(part.get("tokens", 0) for part in corpus.get("splits", {}).values())


def chapters(run: dict, rows: list[dict]) -> pd.DataFrame:
    """The chapters that ran before the report's own notebook, whose seconds and hash are not known
    before it has ended: seconds, bars, statements of the original report, and the hash of all that
    each depends on."""
    told = []
    for name, key in run.get("keys", {}).items():
        if name == "report":
            continue
        own = [row for row in rows if row["notebook"] == name]
        about = sum(map(audited, own))
        seconds = run["durations_s"].get(name)
        told.append((name, seconds, len(own) - about, about, key[:12]))
    return pd.DataFrame(told, columns=["chapter", "seconds", "bars", "statements", "inputs (hash)"])
