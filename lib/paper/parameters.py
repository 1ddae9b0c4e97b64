"""Strict parameters: the known ones are the `parameters` cells of the notebooks; anything else is
an error.

papermill warns about an unknown name and runs the default, and YAML 1.1 reads `lr: 1e-3` as a
string; both end here."""

import ast
import difflib
import json
import math
from pathlib import Path

import yaml


class ParameterError(ValueError):
    """An unknown name or a wrong type, with the remedy."""


def parameters_cell(path: Path) -> dict:
    """Names and defaults of the cell tagged `parameters`, read without running it; typed literals
    only."""
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return literals("".join(cell["source"]), Path(path).name)
    return {}


def literals(source: str, where: str) -> dict:
    """The assignments `name = literal` or `name: type = literal` of `source`; ParameterError for
    anything else."""
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise ParameterError(
                f"{where}: line {node.lineno} of the parameters cell is not `name = literal`: "
                "derive values in a later cell"
            ) from None
    return found


def known_parameters(notebooks: Path) -> dict:
    """Name -> default over all notebooks; ParameterError where two notebooks disagree about a
    default."""
    known, owner = {}, {}
    for path in sorted(Path(notebooks).glob("*.ipynb")):
        for name, default in parameters_cell(path).items():
            if name in known and (known[name] != default or type(known[name]) is not type(default)):
                raise ParameterError(
                    f"{name} is {known[name]!r} in {owner[name]} and {default!r} in {path.name}: "
                    "give it one default"
                )
            known[name], owner[name] = default, path.name
    return known


def check(given: dict, known: dict) -> dict:
    """`given` with every name known and every value of its default's type; ParameterError names
    value and remedy."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise ParameterError(f"parameter {name} = {given[name]!r} is unknown: {remedy}")
    return {name: coerce(name, value, known[name]) for name, value in given.items()}


def coerce(name: str, value, default):
    """`value` as the type of `default`; only lossless readings are accepted (1 as 1.0, 60.0 as 60,
    "1e-3" as 0.001)."""
    wanted = type(default)
    if wanted is list and isinstance(value, (list, tuple)) and default:
        return [coerce(f"{name}[{i}]", item, default[0]) for i, item in enumerate(value)]
    if type(value) is wanted and not (wanted is float and not math.isfinite(value)):
        return value
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        number = as_number(value)
        if number is not None and math.isfinite(number):
            return number
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    raise ParameterError(
        f"{name} = {value!r} is {KINDS.get(type(value), type(value).__name__)}, and "
        f"{KINDS[wanted]} "
        f"is expected: {remedy(value, default)}"
    )


KINDS = {
    bool: "true/false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    type(None): "nothing",
}


def remedy(value, default) -> str:
    """How to write a value of the default's type."""
    if isinstance(default, str):
        return f'quote it in YAML ("{value}"), or use -r instead of -p with papermill'
    if isinstance(default, bool):
        return "write True or False (true or false in YAML, without quotes)"
    return f"write it as {default!r} is written"


def as_number(value) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def parse(text: str, name: str, known: dict):
    """The value in `name=text` of a command line, read as the type of the default (so a salt of
    digits stays text)."""
    default = known.get(name)
    if isinstance(default, str) or name not in known:
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    if isinstance(default, list):
        return yaml.safe_load(text if text.startswith("[") else f"[{text}]")
    number = as_number(text)
    if number is None:
        return text
    return int(number) if isinstance(default, int) and number.is_integer() else number


def read_profile(path: Path) -> dict:
    """A profile's YAML as a dict; ParameterError names a missing file's alternatives or a file that
    is not `name: value`."""
    path = Path(path)
    if not path.is_file():
        names = ", ".join(["quick", *sorted(p.stem for p in path.parent.glob("*.yaml"))])
        raise ParameterError(f"profile {path.stem!r} is unknown: choose one of {names}")
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ParameterError(
            f"{path.name} holds {type(values).__name__}, not `name: value` lines: see quick's "
            f"parameters cells"
        )
    return values


def resolve(notebooks: Path, profile: str = "quick", given: dict | None = None) -> dict:
    """All parameters of a run: the defaults, then the profile's file, then those given; checked
    before anything runs."""
    known = known_parameters(notebooks)
    chosen = (
        {} if profile == "quick" else read_profile(Path(notebooks) / "profiles" / f"{profile}.yaml")
    )
    return {**known, **check(chosen, known), "profile": profile, **check(given or {}, known)}


def injected(namespace: dict, known: dict) -> tuple[dict, set]:
    """What a notebook's namespace holds for `check`, and which names the caller gave explicitly.

    In a kernel these are the names of papermill's `# Parameters` cell; without an input history,
    every public plain value."""
    if "In" in namespace:
        cells = [c for c in namespace["In"] if c.lstrip().startswith("# Parameters\n")]
        explicit = {
            node.targets[0].id
            for c in cells
            for node in ast.parse(c).body
            if isinstance(node, ast.Assign)
        }
    else:
        explicit = {
            n for n, v in namespace.items() if not n.startswith("_") and isinstance(v, tuple(KINDS))
        }
    return {n: v for n, v in namespace.items() if n in explicit or n in known}, explicit
