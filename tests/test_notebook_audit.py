"""Every statement of the original report is answered once, by the chapter that the ledger names,
and no notebook gives a verdict."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from paper import statements
from paper.statements import ANSWER_ONLY

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LEDGER = statements.read()
OLD = ("reproduced", "corrected", "refuted")
GIVEN = {"verdict", "correct", "unit"}  # once taken by nb.audit: no notebook judges
READ_TOO = ("README.md", "Makefile", "docs/**/*", "data/*", "lib/**/*.py", "tests/*.py")
READ_TOO += ("reports/template/**/*", "notebooks/profiles/*", "profiles/*")


def sources(path):
    """The sources of a notebook's code cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def calls(source):
    """The calls `nb.audit(...)` of a cell, and one for each entry of `nb.audits({...})`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if getattr(node.func.value, "id", "") == "nb":
                if node.func.attr == "audit":
                    yield node
                if node.func.attr == "audits":
                    (rows,) = node.args
                    for pair in zip(rows.keys, rows.values, strict=True):
                        yield ast.Call(node.func, list(pair), [])


def named(call):
    """The id that a call names literally, None for one that a loop makes."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) else None


def candidates(call, source, ids):
    """The ids of the ledger that the first argument of a call may be: a literal, an f-string, or a
    name that runs over literals of its cell; `ids` are those that no other call names."""
    if named(call) is not None:
        return {named(call)}
    first = call.args[0]
    if isinstance(first, ast.JoinedStr):
        parts = [re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in first.values]
        return {id for id in ids if re.fullmatch("".join(parts), id)}
    nodes = ast.walk(ast.parse(source))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and n.value in ids}


def answered(cells, chapter):
    """How many calls of a chapter's cells answer each id."""
    found = [(call, source) for source in cells for call in calls(source)]
    literal = {named(call) for call, _ in found}
    ids = {id for id, said in LEDGER.items() if said.notebook == chapter} - literal
    return Counter(id for call, source in found for id in candidates(call, source, ids))


def faults(call, said):
    """What is wrong with a call about a statement, in words."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    measured = dict(zip(("id", "measured", "interval"), call.args, strict=False)) | keywords
    out = [f"gives {name}" for name in GIVEN & set(keywords)]
    values = [measured[name] for name in ("measured", "answer") if name in measured]
    out += ["gives a literal" for value in values if _literal(value)]
    if said.kind in ANSWER_ONLY and "measured" in measured:
        out.append(f"measures a statement of kind {said.kind} at the original's setting")
    if "answer" in measured and not said.answered_at:
        out.append("answers what the ledger does not ask")
    for interval in ("interval", "answer_interval"):  # that there is one is asked when it runs
        if said.rule == "equal" and interval in measured:
            out.append(f"gives {interval} for what is compared exactly")
    return out


def _literal(node):
    return isinstance(node, ast.Constant) and node.value is not None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_answers_its_statements_once_each(path):
    found = answered(sources(path), path.stem)
    wanted = {id for id, said in LEDGER.items() if said.notebook == path.stem}
    assert set(found) == wanted
    assert [id for id, times in found.items() if times > 1] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_verdict_is_given(path):
    for source in sources(path):
        words = [word for word in OLD if re.search(rf"\b{word}\b", source)]
        assert not words, f"{path.name}: {words} in {source!r}"
        for call in calls(source):
            for id in candidates(call, source, set(LEDGER)):
                assert faults(call, LEDGER[id]) == [], f"{path.name}: {id}"


@pytest.mark.parametrize(
    "source, found",
    [
        ('nb.audit("S1-blocks", n)', {"S1-blocks": 1}),
        ('nb.audit("S1-blocks", n)\nnb.audit("S1-blocks", m)', {"S1-blocks": 2}),
        (
            'for n, v in x:\n    nb.audit(f"S43-parameters-{n}", v)',
            {"S43-parameters-64": 1, "S43-parameters-256": 1},
        ),
        (
            'for id in ("S43-dims", "S43-balance"):\n    nb.audit(id, x[id])',
            {"S43-dims": 1, "S43-balance": 1},
        ),
        (
            'nb.audit("S43-parameters-64", a)\nnb.audit(f"S43-parameters-{n}", b)',
            {"S43-parameters-64": 1, "S43-parameters-256": 1},
        ),
        ('nb.audits({"S43-dims": n, "S43-balance": (n, ends)})', {"S43-dims": 1, "S43-balance": 1}),
        ('nb.bar("S1-blocks", n)', {}),
    ],
)
def test_the_calls_are_found(source, found):
    assert answered([source], "06-ablations") == found


@pytest.mark.parametrize(
    "call, told",
    [
        ('nb.audit("S1-blocks", n)', []),
        ('nb.audit("S1-blocks", 1)', ["gives a literal"]),
        ('nb.audits({"S1-blocks": 1})', ["gives a literal"]),
        ('nb.audits({"S1-tests": n})', ["measures a statement of kind process"]),
        ('nb.audit("S1-blocks", n, verdict=v)', ["gives verdict"]),
        ('nb.audit("S1-tests", n)', ["measures a statement of kind process"]),
        ('nb.audit("S1-tests", answer=n)', []),
        ('nb.audit("S1-blocks", n, answer=m)', ["answers what the ledger does not ask"]),
        ('nb.audit("S1-perplexity", n, ends)', []),
        ('nb.audit("S1-perplexity", n, interval=ends)', []),
        ('nb.audit("S1-blocks", n, ends)', ["gives interval for what is compared exactly"]),
        ('nb.audit("S6-synthetic", note="none")', []),
    ],
)
def test_a_wrong_call_is_seen(call, told):
    (node,) = calls(call)
    found = faults(node, LEDGER[named(node)])
    assert len(found) == len(told) and all(
        f.startswith(t) for f, t in zip(found, told, strict=True)
    )


def test_the_old_words_are_gone_everywhere():
    """As verdicts: a string, a name in code quotes, a badge."""
    old = re.compile(rf"(?:[\"'`]|badge\.|i-)({'|'.join(OLD)})\b|verdict(?:_below|_above)\b")
    own = Path(__file__)
    files = {path for glob in READ_TOO for path in ROOT.glob(glob) if path.is_file()} - {own}
    assert len(files) > 100
    for path in sorted(files):
        if path.suffix in (".py", ".md", ".j2", ".css", ".toml", ".yaml", ""):
            found = old.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"
