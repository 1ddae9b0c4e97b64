"""docs/page.png, README.md's picture of the committed page, and which run it is of: README shows it
beside the numbers of that run alone."""

import shutil
import subprocess
from pathlib import Path

from PIL import Image, PngImagePlugin

from .provenance import PROGRAMS

PLACE = Path("docs", "page.png")
FLAGS = "--headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=1"
SIZE, SECONDS = "--window-size=1200,1000", 120


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


def take(page: Path, run: dict, target: Path) -> Path:
    """Writes the top of a page, as a reader sees it, to `target`, with the `stamp` of its run in a
    text chunk; RuntimeError without Chromium."""
    if (chromium := browser()) is None:
        raise RuntimeError("chromium is not installed: apt install chromium, then make picture")
    target.parent.mkdir(parents=True, exist_ok=True)
    shot = f"--screenshot={target}"
    command = [chromium, *FLAGS.split(), SIZE, shot, page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    said = PngImagePlugin.PngInfo()
    said.add_text("run", stamp(run))
    image = Image.open(target).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(target, optimize=True, pnginfo=said)
    return target
