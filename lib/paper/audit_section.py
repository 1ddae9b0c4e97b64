"""The audit of the original report as the page shows it: statements by its sections, settings
apart, and the verdicts counted by kind."""

from .bars import OPERATORS
from .claims import audited
from .marks import strip, written
from .statements import ANSWER_ONLY, BETTER, HOLDS, SLIP, VERDICTS, sections
from .summary import audit_by_kind

TITLES = {
    "setting": "settings, copied",
    "arithmetic": "counts and calculations",
    "measurement": "measured numbers",
    "conclusion": "conclusions",
    "process": "about its own process",
    "future": "limits and plans",
}
# why nothing stands in the column of the original's own setting
WHY = {"process": "its code is not available", "future": "a plan"}


def audit_section(rows: list[dict], ledger: dict) -> dict:
    """{total, examined, kinds, counted, groups, settings, pending} for the template;
    `rows` are those of the page, with the cells that computed them."""
    own = {row["id"]: row for row in rows if audited(row)}
    shown = [_row(own[id], said) for id, said in ledger.items() if id in own]
    groups = {}
    for row in shown:
        if row["kind"] != "setting":
            groups.setdefault(row["section"], []).append(row)
    kinds, headings = audit_by_kind(rows, ledger).to_dict("records"), sections()
    return {
        "total": len(ledger),
        "examined": bool(shown),
        "kinds": [(TITLES[kind["kind"]], kind["statements"]) for kind in kinds],
        "counted": _counted(kinds),
        "groups": [(no, headings.get(no, ""), group) for no, group in groups.items()],
        "settings": [row for row in shown if row["kind"] == "setting"],
        "pending": [row for id, row in ledger.items() if id not in own],
    }


def _row(row, said):
    """A row with what the template shows of it."""
    at_home = row["kind"] not in ANSWER_ONLY
    compared = {"seed": row["seed_value"]} if said["rule"] == "interval" else {}
    bar = (said["op"], said["value"]) if said["op"] in OPERATORS else None
    return {
        **row,
        "at_home": at_home,
        "why": WHY.get(row["kind"], "not examined"),
        "shown": "" if row["measured"] is None else row["shown"],
        "asked": _asked(row, said),
        "strip": strip(row["measured"], row["interval"], bar, **compared),
        "answer_shown": ""
        if row["answer"] is None
        else written(row["answer"], row["unit"], row["answer_interval"]),
    }


def _asked(row, said):
    """What a statement is held to, where its own number does not show it: the bar, or the latitude
    of a number that was stated roughly."""
    if row["threshold"] or said["step"] is None:
        return row["threshold"] or ""
    return f"{written(said['seed_value'])} ± {written(said['step'] / 2)}"


def _counted(kinds):
    """[(setting in words, [(verdict, one number a kind)])]; None where a kind has no such
    verdict."""
    at_home = [verdict for verdict in VERDICTS if verdict != BETTER]
    away = [verdict for verdict in VERDICTS if verdict != SLIP]
    own = [(v, [None if _apart(k["kind"], v) else k[v] for k in kinds]) for v in at_home]
    far = [(v, [None if k["kind"] == "setting" else k[f"answer {v}"] for k in kinds]) for v in away]
    return [("at its own setting", own), ("where the question can be answered", far)]


def _apart(kind, verdict):
    """What is not counted at the original's own setting: copies, and what has no such setting."""
    return kind in ANSWER_ONLY or (kind, verdict) == ("setting", HOLDS)
