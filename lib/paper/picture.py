"""docs/page.png, README.md's picture of the committed page, and of which run it is: README shows it
beside the numbers of that run alone."""

import shutil
import subprocess
from pathlib import Path

from PIL import Image, PngImagePlugin

from .provenance import PROGRAMS

PLACE = Path("docs", "page.png")
FLAGS = "--headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,1000"


def browser() -> str | None:
    """Chromium's file, or None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS["Chromium"])), None)


def stamp(run: dict) -> str:
    """What tells a run from every other, by its run.json."""
    return f"{run.get('commit')} {run.get('executed')}"


def run_of(picture: Path) -> str:
    """The `stamp` of the run that a picture shows; "" where there is none, or it does not say."""
    if not picture.is_file():
        return ""
    with Image.open(picture) as image:
        return image.info.get("run", "")


def take(page: Path, run: dict, target: Path) -> None:
    """Writes the top of a page to `target`, the `stamp` of its run in a text chunk; RuntimeError
    without Chromium."""
    if (chromium := browser()) is None:
        raise RuntimeError("chromium is not installed: apt install chromium, then make picture")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [chromium, *FLAGS.split(), f"--screenshot={target}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    said = PngImagePlugin.PngInfo()
    said.add_text("run", stamp(run))
    image = Image.open(target).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(target, optimize=True, pnginfo=said)
