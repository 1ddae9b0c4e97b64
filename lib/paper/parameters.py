"""Strict parameters: the known ones are the `parameters` cells of the notebooks; anything else is
an error.

Every door (make, papermill, YAML, a cell) reads a value as the type of its default. papermill
warns about an unknown name and runs the default, YAML 1.1 reads `lr: 1e-3` as a string and `no` as
False, and a float forgets the last digits of a long seed; all that ends here."""

import ast
import difflib
import json
import math
import numbers
import operator
import re
from collections import Counter
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import yaml

from .names import short

QUICK = "profiles/quick.yaml"  # the defaults; the parameters cells repeat them, which a test holds


class ParameterError(ValueError):
    """An unknown name or a wrong value, with the remedy."""


def parameters_cell(path: Path) -> dict:
    """Names and values of the cell tagged `parameters`, read without running it; typed literals
    only."""
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return literals("".join(cell["source"]), Path(path).name)
    return {}


def literals(source: str, where: str) -> dict:
    """The assignments `name = literal` or `name: type = literal` of `source`; ParameterError for
    anything else."""
    found = {}
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(
            f"{where}: line {error.lineno} of the parameters cell is no Python: {error.msg}"
        ) from None
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise ParameterError(
                f"{where}: line {node.lineno} of the parameters cell is not `name = literal`: "
                "derive values in a later cell"
            ) from None
    return found


def cells(notebooks: Path) -> dict[str, dict]:
    """Notebook's name -> its parameters as saved, in the order of the chapters."""
    return {p.stem: parameters_cell(p) for p in sorted(Path(notebooks).glob("*.ipynb"))}


def known_parameters(notebooks: Path) -> dict:
    """Name -> default over all notebooks: that of profiles/quick.yaml, else what most cells say (of
    equals the first)."""
    path = Path(notebooks) / QUICK
    listed = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    said: dict[str, list] = {}
    for cell in cells(notebooks).values():
        for name, value in cell.items():
            said.setdefault(name, []).append(value)
    return {name: listed.get(name, most(values)) for name, values in said.items()}


def most(values: list):
    """The commonest of `values`; of equals the first. Types count: 1, 1.0 and True differ."""
    written = [repr(value) for value in values]
    return values[written.index(Counter(written).most_common(1)[0][0])]


def saved_changes(notebooks: Path) -> dict[str, dict]:
    """Name -> {notebook: value} where a saved parameters cell says another value than the default.

    JupyterLab saves by itself, so a change in one notebook is no mistake: it counts there, and in a
    run of all chapters the first notebook's counts."""
    known, changes = known_parameters(notebooks), {}
    for stem, cell in cells(notebooks).items():
        for name, value in cell.items():
            if type(value) is type(known[name]) and value == known[name]:
                continue
            try:
                changes.setdefault(name, {})[stem] = coerce(name, value, known[name])
            except ParameterError as error:
                raise ParameterError(f"{stem}.ipynb: {error}") from None
    return changes


def check(given: dict, known: dict) -> dict:
    """`given` with every name known and every value of its default's type; ParameterError names
    value and remedy."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name[:99], known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            shown = name if name.isprintable() else repr(name)
            raise ParameterError(
                f"parameter {short(shown)} = {short(repr(given[name]))} is unknown: {remedy}"
            )
    return {name: coerce(name, value, known[name]) for name, value in given.items()}


def coerce(name: str, value, default):
    """`value` as the type of `default`; only lossless readings are accepted (1 as 1.0, 60.0 and
    "6e1" as 60, "1e-3" as 0.001, "10,50" as [10, 50])."""
    wanted = type(default)
    if wanted is list:
        items = listed(value) if isinstance(value, str) else value
        if isinstance(items, (list, tuple)):
            kind = default[0] if default else 0
            return [coerce(f"{name}[{i}]", item, kind) for i, item in enumerate(items)]
    else:
        found = READERS[wanted](value)
        if found is not None:
            return found
    kind = KINDS.get(type(value), type(value).__name__)
    raise ParameterError(
        f"{name} = {short(repr(value))} is {kind}, and {KINDS[wanted]} is expected: "
        f"{remedy(name, value, default)}"
    )


KINDS = {
    bool: "true/false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a tuple",
    dict: "a mapping",
    type(None): "nothing",
}
NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WORDS = {"true": True, "yes": True, "on": True, "1": True}
WORDS |= {"false": False, "no": False, "off": False, "0": False}


def truth(value) -> bool | None:
    """true/false, also in YAML's other words; NumPy's own count."""
    if isinstance(value, str):
        return WORDS.get(value.strip().lower())
    return bool(value) if type(value).__name__ in ("bool", "bool_") else None


def whole(value) -> int | None:
    """An integer to its last digit, from an integer of any kind, its decimal digits (also grouped,
    1_000, or as 1e3), or a float that is surely one (below 2^53 they all are)."""
    if isinstance(value, str):
        return whole_text(value.strip())
    if isinstance(value, bool):
        return None
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        exact = math.isfinite(value) and abs(value) < 2**53 and value == int(value)
        return int(value) if exact else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole_text(text: str) -> int | None:
    digits = re.sub(r"(?<=\d)_(?=\d)", "", text, flags=re.ASCII)
    try:
        if re.fullmatch(r"[+-]?\d+", digits, re.ASCII):
            return int(digits)
        if NUMERAL.fullmatch(digits) and (exact := Decimal(digits)).adjusted() < 19:
            return int(exact) if exact == exact.to_integral_value() else None
    except (ValueError, ArithmeticError):  # more digits than Python reads, an exponent beyond all
        pass
    return None


def finite(value) -> float | None:
    """A finite float, from any real number or its text."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


READERS = {
    bool: truth,
    int: whole,
    float: finite,
    str: lambda value: value if isinstance(value, str) else None,
    type(None): lambda value: value,
}


def listed(text: str) -> list | None:
    """The items of `[a, b]` or `a, b`, of `['a', "b"]` without their quotes; None where brackets or
    quotes do not match."""
    inner = text.strip()
    if inner.startswith("[") != inner.endswith("]"):
        return None
    inner = inner[1:-1] if inner.startswith("[") else inner
    if inner[:1] in ("'", '"'):
        try:
            return list(ast.literal_eval(f"[{inner}]"))
        except (SyntaxError, ValueError):
            return None
    return [item.strip() for item in inner.split(",")] if inner.strip() else []


def remedy(name: str, value, default) -> str:
    """How to write a value of the default's type."""
    if isinstance(default, str):
        return f'write it in quotes ({name}: "..." in YAML), or use -r instead of -p with papermill'
    if isinstance(default, bool):
        return "write True or False (true or false in YAML, without quotes)"
    if isinstance(default, int) and isinstance(value, float) and abs(value) >= 2**53:
        return "write all its digits, without a point or an exponent"
    return f"write it as {default!r} is written"


def read_profile(path: Path) -> dict:
    """A profile's YAML as {name: text or list of texts}, to be read as the default's type;
    ParameterError names a missing file's alternatives or a file that is not `name: value`."""
    path = Path(path)
    if not path.is_file():
        raise unknown_profile(path.stem, path.parent)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        at = f" (line {place.line + 1})" if place else ""
        raise ParameterError(
            f"{path.name} is not YAML{at}: {getattr(error, 'problem', None) or 'not UTF-8'}: write "
            "`name: value` lines, as the other profiles do"
        ) from None
    if not isinstance(values, dict):
        raise ParameterError(
            f"{path.name} holds {KINDS.get(type(values))}, not `name: value` lines: write them as "
            "the other profiles do"
        )
    return values


def resolve(
    notebooks: Path, profile: str = "quick", given: dict | None = None, own: frozenset = frozenset()
) -> dict:
    """All parameters of a run, checked before anything runs: the defaults; then what a saved
    notebook says instead (not for names in `own`, which the caller speaks for); then the profile's
    file; then those given."""
    known = known_parameters(notebooks)
    changes, mine = saved_changes(notebooks), {*own, "profile", "run_dir"}
    saved = {name: [*values.values()][0] for name, values in changes.items() if name not in mine}
    chosen = check(chosen_by(notebooks, profile), known)
    return {**known, **saved, **chosen, "profile": profile, **check(given or {}, known)}


def chosen_by(notebooks: Path, profile: str) -> dict:
    """What the profile's file says; nothing for quick, which is the defaults."""
    if profile == "quick":
        return {}
    folder = Path(notebooks) / "profiles"
    if not re.fullmatch(r"\w[\w.-]{0,99}", profile):
        raise unknown_profile(profile, folder)
    return read_profile(folder / f"{profile}.yaml")


def unknown_profile(name: str, folder: Path) -> ParameterError:
    names = dict.fromkeys(["quick", *sorted(path.stem for path in folder.glob("*.yaml"))])
    return ParameterError(
        f"profile {short(repr(name))} is unknown: choose one of {', '.join(names)}"
    )


def notes(notebooks: Path, params: dict, own: str | None = None) -> list[str]:
    """A line for every parameter that a saved notebook changes and this run takes otherwise or from
    there; `own` is the notebook that runs by itself."""
    lines = []
    for name, values in saved_changes(notebooks).items():
        told = " and ".join(f"{value!r} in {stem}.ipynb" for stem, value in values.items())
        if name not in ("profile", "run_dir") and any(stem != own for stem in values):
            lines.append(f"{name} is saved as {told}: this run takes {params[name]!r}")
    return lines


def preflight(project, params: dict, stages: tuple | None = None) -> list[str]:
    """Calls the check that pyproject.toml names, `[tool.paper] preflight = "module:function"`, for
    the chapters `stages` (all of them for None), and returns what it has to say of `params`, a
    corpus file by its absolute path; ParameterError with its sentence where the chapters could not
    use them."""
    module, _, function = project.settings.get("preflight", "").partition(":")
    if not module:
        return []
    try:
        check = getattr(import_module(module), function)
        path = project.corpus_file(params["corpus"]) if params.get("corpus") else None
        given = params if path is None else {**params, "corpus": str(path)}
        return check(given, stages, project.root) or []
    except (ValueError, OSError) as error:
        raise ParameterError(str(error)) from None
