"""The headline of README.md: the table of the committed rendering's tiles, and its picture."""

import re
from pathlib import Path

from . import picture
from .files import write_text
from .marks import interval_text, written

START, END = "<!-- headline:start -->", "<!-- headline:end -->"
SHOWN = f"[![The page as it opens]({picture.PLACE.as_posix()})](reports/reference/index.html)\n\n"


def headline_table(tiles: list[dict]) -> str:
    """The headline numbers as a Markdown table: measured with its interval, limit or reference,
    bar, verdict, and the original report's number beside what its own setting gives here."""
    lines = [
        "| what | here | limit or reference | bar | verdict | at the original report's setting |"
    ]
    lines.append("| --- | ---: | --- | --- | --- | --- |")
    for tile in tiles:
        value = written(tile["value"], tile["unit"], tile["interval"])
        shown = f"{value} {interval_text(tile['interval'])}".strip()
        cells = (tile["label"], shown, tile["limit_text"], tile["bar"], tile["verdict"])
        lines.append(f"| {' | '.join(cell or '–' for cell in (*cells, tile['seed_text']))} |")
    return "\n".join(lines)


def took(run: dict) -> str:
    """How long the committed run took, by its run.json; "" where that does not say."""
    seconds, machine = run.get("durations_s"), run.get("machine", {})
    if not seconds:
        return ""
    where = f" on {machine['cores']} cores" if machine.get("cores") else ""
    return f"The committed run took {sum(seconds.values()) / 60:.0f} minutes{where}. "


def update(readme: Path, tiles: list[dict], run: dict) -> Path:
    """Rewrites the picture, what the run took and its headline table between the markers in
    `readme`, and nothing else; ValueError if a marker is missing."""
    text = Path(readme).read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(
            f"{Path(readme).name} does not hold {START} and {END} once each: put them back "
            "around the table"
        )
    block = f"{START}\n{took(run)}Its headline:\n\n{headline_table(tiles)}\n{END}"
    return show(write_text(readme, pattern.sub(lambda _: block, text)), run)


def show(readme: Path, run: dict) -> Path:
    """Shows the picture above the table, or takes it away where it is of another run."""
    text = Path(readme).read_text(encoding="utf-8").replace(SHOWN, "")
    if picture.run_of(Path(readme).parent / picture.PLACE) == picture.stamp(run):
        text = text.replace(f"{START}\n", f"{START}\n{SHOWN}")
    return write_text(readme, text)
