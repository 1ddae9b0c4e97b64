"""Every verdict of every chapter is derived: no notebook gives one, and each would change with its
measurement."""

import ast
import json
import math
import re
from pathlib import Path

import pytest

from paper import bars

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BARS = bars.read()


def calls(path, method):
    """The calls `nb.<method>(...)` of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    if node.func.attr == method and getattr(owner, "id", "") == "nb":
                        yield node


def ids(node, path):
    """The bars that the first argument of a call may name: a literal, an f-string, or what runs
    over literals of the notebook or of the studies that it imports."""
    first = node.args[0]
    if isinstance(first, ast.Constant):
        return {first.value}
    if isinstance(first, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "" for part in first.values]
        return {id for id in BARS if id.startswith(parts[0]) and id.endswith(parts[-1])}
    source = path.read_text(encoding="utf-8").replace('\\"', '"')
    named = {id for id in BARS if f'("{id}", ' in source}
    texts = [file.read_text(encoding="utf-8") for file in studies(source)]
    return named | {id for id in BARS if any(re.search(rf'(\(|bar=)"{id}"', t) for t in texts)}


def studies(source):
    """The files of the studies that a notebook's source imports."""
    lines = re.findall(r"from studies(?:\.(\w+))? import ([\w, ]+)", source)
    names = {name.split(" as ")[0].strip() for _, names in lines for name in names.split(",")}
    names |= {module for module, _ in lines if module}
    return [file for file in (ROOT / "lib" / "studies").glob("*.py") if file.stem in names]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_verdict_is_given(path):
    assert not list(calls(path, "claim"))
    for node in calls(path, "bar"):
        given = {keyword.arg for keyword in node.keywords}
        assert given <= {"rows", "value", "case", "against", "of", "interval"}
        measured = node.args[1:] + [k.value for k in node.keywords if k.arg == "rows"]
        assert measured and not any(isinstance(value, ast.Constant) for value in measured)


def test_every_bar_is_held_by_one_chapter_and_every_id_is_known():
    found = {}
    for path in NOTEBOOKS:
        for node in calls(path, "bar"):
            for id in ids(node, path):
                assert id in BARS, f"{path.name}: {id}"
                found.setdefault(id, set()).add(path.stem)
    assert all(len(where) == 1 for where in found.values())
    assert set(BARS) == set(found)


@pytest.mark.parametrize("bar", BARS.values(), ids=lambda bar: bar.id)
def test_every_verdict_changes_when_its_measurement_does(bar):
    if bar.rule == "all":
        assert {bar.verdict((3, 3)), bar.verdict((2, 3))} == {"pass", "fail"}
        return
    bar = bar if math.isfinite(bar.value) else bar.at(1.0)
    step = abs(bar.value) or 1.0
    below, above = bar.value - step, bar.value + step
    wide = (below, above)
    if bar.rule == "interval":
        verdicts = [bar.verdict(x, (x - step / 2, x + step / 2)) for x in (below, above)]
        assert bar.verdict(bar.value, wide) == "undecided"
    else:
        verdicts = [bar.verdict(x) for x in wide]
    assert sorted(verdicts) == ["fail", "pass"]
    assert verdicts[0] == ("pass" if bar.op.startswith("<") else "fail")
