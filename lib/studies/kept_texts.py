"""Long runs on real texts, kept with how they were made, for pages that do not run them."""

import json
from pathlib import Path

import pandas as pd

from .presets import SHAKESPEARE
from .real_texts import told


def keep(folder: Path, rows: list[dict], curves: pd.DataFrame, made: dict) -> None:
    """Leaves results of long runs for a page that does not run them, with how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "texts.csv", index=False, lineterminator="\n")
    curves.to_csv(folder / "texts-curves.csv", index=False, lineterminator="\n")
    (folder / "texts.json").write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")


def left(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """What `keep` left: rows, curves and how they were made; empty where there is nothing."""
    if not (folder / "texts.json").is_file():
        return pd.DataFrame(), pd.DataFrame(columns=["who", "text", "seconds", "valid_nats"]), {}
    made = json.loads((folder / "texts.json").read_text())
    return pd.read_csv(folder / "texts.csv"), pd.read_csv(folder / "texts-curves.csv"), made


def figure_data(own: pd.DataFrame, apart: pd.DataFrame) -> pd.DataFrame:
    """The curves to draw: this run's, and on Tiny Shakespeare those measured apart."""
    apart = apart[apart.text == SHAKESPEARE].assign(who=apart.who + ", apart")
    shown = pd.concat([table for table in (own, apart) if len(table)] or [own])
    return shown[shown.seconds > 0].reset_index(drop=True)


def judged(kept: pd.DataFrame, bars: dict) -> pd.DataFrame:
    """Kept rows with the verdict of the bar of each, "" where it has none."""
    rows = kept.fillna({"bar": ""}).to_dict("records")
    verdicts = [bars[r["bar"]].verdict(r[r["judged"]]) if r["bar"] else "" for r in rows]
    return told(rows).assign(verdict=verdicts)


def apart(made: dict) -> str:
    """How kept results were made, in a sentence."""
    if not made:
        return "No long run has been kept yet: make texts PROFILE=full makes one."
    return (
        f"Measured apart on {made['date']} at commit {made['commit'][:12]}, on {made['cpu']} with "
        f"{made['threads']} threads, by `{made['command']}`."
    )
