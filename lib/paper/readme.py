"""The headline table of README.md, made from the committed rendering's claims."""

import re
from pathlib import Path

from .files import read_json, write_text
from .headline import headlines, measured

START, END = "<!-- headline:start -->", "<!-- headline:end -->"


def headline_table(rows: list[dict], ledger: dict) -> str:
    """The headline claims as a Markdown table: what, the seed report's figure, measured with its
    interval, bar, verdict."""
    lines = ["| what | seed report | here | bar | verdict |", "| --- | ---: | ---: | --- | --- |"]
    for tile in headlines(rows, ledger, {}):
        said = tile["seed_text"].removeprefix("seed report: ") or "–"
        cells = (tile["label"], said, measured(tile), tile["threshold"] or "–", tile["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def update(readme: Path, claims: Path, ledger: dict) -> Path:
    """Rewrites the headline table between the markers in `readme`, and nothing else; ValueError if
    a marker is missing."""
    text = Path(readme).read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(
            f"{Path(readme).name} does not hold {START} and {END} once each: put them back "
            "around the table"
        )
    block = f"{START}\n{headline_table(read_json(claims), ledger)}\n{END}"
    return write_text(readme, pattern.sub(lambda _: block, text))
