"""What a running notebook says of its parameters: its own parameters cell as it was last run, and
what papermill injected after it.

Other names of the kernel do not count, whatever they are called: a chapter's variables, and those
of another chapter that ran in the same kernel, are not parameters."""

import ast

from .parameters import KINDS, ParameterError

INJECTED = "# Parameters\n"  # how papermill's cell begins
ALIKE = 1 / 3  # of the names of two cells: below this they have nothing to do with one another


def running(namespace: dict, own: str, cells: dict[str, dict]) -> tuple[dict, set]:
    """(values, explicit): the parameters of the notebook `own` in the kernel whose globals are
    `namespace`, and the names that papermill gave. `cells` are those of all notebooks on disk.

    Without an input history every public plain value counts as given; where a client records none
    of what it runs, the names of the notebook's own cell count. ParameterError where the parameters
    cell has not run."""
    if "In" not in namespace:
        plain = {n: v for n, v in namespace.items() if isinstance(v, tuple(KINDS))}
        values = {n: v for n, v in plain.items() if not n.startswith("_")}
        return values, set(values)
    current, found = None, {}
    for source in namespace["In"]:
        assigned = assignments(source, namespace)
        if source.lstrip().startswith(INJECTED):
            values, explicit = found.setdefault(current or own, ({}, set()))
            values.update(assigned)
            explicit.update(assigned)
        elif (whose := closest(set(assigned), own, cells)) is not None:
            current, found[whose] = whose, (assigned, set())
    if (
        own not in found
        and unrecorded(namespace["In"])
        and set(cells.get(own, ())) <= set(namespace)
    ):
        return {n: namespace[n] for n in cells.get(own, ())}, set()
    if own not in found and cells.get(own):
        raise ParameterError(
            f"the parameters cell of {own} has not run in this kernel: run it before this one "
            "(Run > Run All Cells)"
        )
    return found.get(own, ({}, set()))


def unrecorded(history: list[str]) -> bool:
    """Whether the client keeps no history of what it runs (nbval): at most the running cell."""
    return sum(bool(source.strip()) for source in history) <= 1


def assignments(source: str, namespace: dict) -> dict:
    """Name -> value of a cell that is nothing but `name = value` lines; {} for any other. A value
    that is no literal is the kernel's."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return {}
    values = {}
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or getattr(node, "value", None) is None:
            return {}
        try:
            values[target.id] = ast.literal_eval(node.value)
        except ValueError:
            values[target.id] = namespace.get(target.id)
    return values


def closest(names: set, own: str, cells: dict[str, dict]) -> str | None:
    """The notebook whose parameters cell `names` are most alike (of equals `own`); None for a cell
    that is no parameters cell."""
    if not names:
        return None
    alike = {stem: len(names & set(c)) / len(names | set(c)) for stem, c in cells.items() if c}
    alike.setdefault(own, ALIKE)  # a notebook of the reader's own takes what is nobody else's
    best = max(alike.values())
    if best < ALIKE:
        return None
    return own if alike[own] == best else max(alike, key=alike.get)
