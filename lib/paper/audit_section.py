"""The audit of the original report as the page shows it: statements by its sections, settings
apart, and the verdicts counted by kind."""

from .claims import audited
from .marks import strip, written
from .statements import ANSWER_ONLY, SLIP, VERDICTS
from .summary import audit_by_kind

SECTIONS = {
    "1": "Resumen Ejecutivo",
    "2": "Arquitectura del Modelo",
    "3.1": "Entrenamiento",
    "3.2": "Evaluación",
    "3.3": "KV-cache Benchmarks",
    "3.4": "Cuantización Benchmarks",
    "4.1": "Positional Encoding: RoPE vs Sinusoidal",
    "4.2": "Cuantización: Scale Simétrico vs Asimétrico",
    "4.3": "Dimensión del Modelo",
    "5": "Reproducibilidad",
    "6": "Limitaciones y Trabajo Futuro",
    "7": "Conclusiones",
}  # of the original report
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
    """{total, examined, kinds, verdicts, answers, groups, settings, pending} for the template;
    `rows` are those of the page, with the cells that computed them."""
    own = {row["id"]: row for row in rows if audited(row)}
    shown = [_row(own[id], said) for id, said in ledger.items() if id in own]
    groups = {}
    for row in shown:
        if row["kind"] != "setting":
            groups.setdefault(row["section"], []).append(row)
    verdicts = [verdict for verdict in VERDICTS if verdict != SLIP]
    return {
        "total": len(ledger),
        "examined": bool(shown),
        "verdicts": list(VERDICTS),
        "answers": verdicts,
        "kinds": [_kind(row, verdicts) for row in audit_by_kind(rows, ledger).to_dict("records")],
        "groups": [
            (section, SECTIONS.get(section, ""), group) for section, group in groups.items()
        ],
        "settings": [row for row in shown if row["kind"] == "setting"],
        "pending": [row for id, row in ledger.items() if id not in own],
    }


def _row(row, said):
    """A row with what the template shows of it."""
    at_home = row["kind"] not in ANSWER_ONLY
    compared = {"seed": row["seed_value"]} if said["rule"] == "interval" else {}
    return {
        **row,
        "at_home": at_home,
        "why": WHY.get(row["kind"], "not examined"),
        "shown": _text(row["measured"], row["unit"], row["interval"]),
        "strip": strip(row["measured"], row["interval"], row["threshold"], **compared),
        "answer_shown": _text(row["answer"], row["unit"], row["answer_interval"]),
    }


def _text(value, unit, interval):
    return "" if value is None else written(value, unit, interval)


def _kind(row, answers):
    return {
        "title": TITLES[row["kind"]],
        "statements": row["statements"],
        "own": [row[verdict] for verdict in VERDICTS],
        "answer": [row[f"answer {verdict}"] for verdict in answers],
    }
