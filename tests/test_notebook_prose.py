"""No number that was measured is typed into a chapter's words: it would be a copy, and wrong after
the next run. What stays is named here: settings and definitions, each with its reason."""

import ast
import json
import re
from pathlib import Path

import pytest

from paper.claims import seed_claims

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
EVERY = sorted(FOLDER.rglob("*.ipynb"))

SETTINGS = (
    # how intervals and tests are made
    "95 %",
    "80 % power",
    "below 0.05",
    "blocks of 512 tokens",
    "fewer than 30 tokens",
    "100 tokens or more",
    # what counts as free, and what a logarithmic axis or a table leaves out
    "less than 1 %",
    "at most 1 %",
    "At most 1 %",
    "below 1 is slower",
    "below 0.01 %",
    "more than 1.1 times",
    # number formats
    "int4 in groups of 32",
    "groups of 32 with zero-points",
    "a scale for 32 weights",
    "QLoRA's 16 levels",
    "rounded to 8 bits",
    "input reaches 6",
    "the last 32 tokens",
    "4 specials",
    "blocks of 16",
    "pages of 16",
    "16 bytes a parameter",
    # definitions
    "2 · layers · key-value heads",
    "8·T(1) / T(8 rows)",
    "greedy (width 1)",
    "a load of 1",
    "at distance 1",
    # sizes that a study fixes
    "some 300 tokens",
    "the first 16 windows",
    "8,192 tokens",
    "the first 32 windows",
    "The 64 tokens",
    "times 64 (a prompt)",
    "one block of width 128",
    "a vocabulary of 16 words",
    "network of 8 units",
    "50 tokens",
    "500 tokens",
    # the original report's own setting
    "50,000 tokens",
    "3 repeats",
    "windows of 64",
    "over 1,004",
    "A uniform guess is 1,004, the floor 1,000",
)
CODE = re.compile(r"\[@[^\]]*\]|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.S)  # citations, code, formulas
FIELD = re.compile(r"\{[^{}]*\}")
REFERENCE = re.compile(r"\b(chapter|appendix|order|section) \d+")
NUMBER = re.compile(r"(?<![\w.-])[-+−±]?\d+(?:[.,]\d+)*(?!\w|-\w)")
WORDED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|dozen|twenty|thirty|forty|fifty|hundred"
    r"|half|quarter) (?:a |of a )?(?:(?:micro|milli)?seconds?|minutes?|nats?|per cent|percent)\b"
)


def cells(path, kind):
    book = json.loads(path.read_text(encoding="utf-8"))
    return {c["id"]: "".join(c["source"]) for c in book["cells"] if c["cell_type"] == kind}


def sentences(source):
    """The strings of a code cell that are sentences or templates of them: three words or more."""
    nodes = ast.walk(ast.parse(source))
    texts = (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [text for text in texts if len(re.findall(r"[^\W\d]{2,}", text)) > 2]


def typed(text):
    """The numbers in a text that stand for themselves: no part of a name, no reference."""
    words = " ".join(REFERENCE.sub("", FIELD.sub("", CODE.sub("", text))).split())
    for setting in SETTINGS:
        words = words.replace(setting, "")
    return NUMBER.findall(words) + WORDED.findall(words)


def test_numbers_are_told_from_names_references_and_settings():
    assert typed("It loses 0.3 nats, −5 % or 1,045.31.") == ["0.3", "−5", "1,045.31"]
    assert typed("int8 and FP32, SHA-256, WikiText-2, the 95th, $x = 3$, `4`, {x:.2f}") == []
    assert typed("as chapter 5 says, in groups of 32 with zero-points, its 2-block twin") == []
    assert typed("some thirty microseconds, or eight bits") == ["thirty microseconds"]
    assert sentences('nb.say("it took {x:.1f} and 3 s", x=1); y = "a b"') == [
        "it took {x:.1f} and 3 s"
    ]


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_no_number_that_was_measured_is_typed(path):
    found = {id: typed(text) for id, text in cells(path, "markdown").items()}
    for id, source in cells(path, "code").items():
        if id != "parameters":
            found[id] = [number for text in sentences(source) for number in typed(text)]
    assert {id: numbers for id, numbers in found.items() if numbers} == {}


def test_every_setting_is_still_told_somewhere():
    texts = [text for path in EVERY for text in cells(path, "markdown").values()]
    code = [source for path in EVERY for source in cells(path, "code").values()]
    texts += [text for source in code for text in sentences(source)]
    texts += [said["note"] for said in seed_claims().values()]
    whole = " ".join(" ".join(texts).split())
    assert [setting for setting in SETTINGS if setting not in whole] == []
