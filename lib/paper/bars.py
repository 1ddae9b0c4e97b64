"""Bars: what was asked of a quantity before it was measured, and the rule that judges it.

A bar stands in data/bars.toml with the day of its first writing and every later change with its
reason. A verdict is derived from a bar and a measurement, never given:

    rule "interval"   a statistical quantity: `pass` where its whole 95 % interval lies on the right
                      side, `fail` where it lies wholly on the wrong side, `undecided` between
    rule "exact"      counts, bytes and identities: the number itself is compared
    rule "all"        so many of so many: every one must hold"""

import difflib
import math
import operator
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from .marks import interval_text, written
from .numerals import MINUS, RATIO_DIGITS, brief, number, raised
from .words import literal

BARS = Path(__file__).resolve().parents[2] / "data" / "bars.toml"
PASS, FAIL, UNDECIDED = VERDICTS = ("pass", "fail", "undecided")
OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥"}
RULES = ("interval", "exact", "all")
SORTS = ("quantity", "size", "identity")  # measured; counted; equal, exactly or up to rounding

CHANGES = {  # kind -> what a change of that kind did, what a reader must know of first at the top
    "looser": "loosened it, or dropped it for a looser one",
    "subject": "asked it of something else",
    "recipe": "left its bound and came with another recipe of training",
    "timed otherwise": "left its bound and timed something else",
    "written late": "wrote it, or its bound, after its numbers were known",
    "stricter rule": "made its rule or its prediction stricter",
    "tighter": "tightened its bound, or brought it back",
    "words": "changed its words, its unit or how it is counted, and no more",
}


@dataclass(frozen=True)
class Bar:
    """One bar; ValueError names the field that is wrong."""

    id: str
    statement: str
    rule: str
    written: object  # the date of its first writing
    op: str = ""
    value: float = math.nan
    unit: str = ""
    against: str = ""  # what is measured as the bound, in words; `value` is then given with `at`
    sort: str = ""  # one of SORTS; "" is an identity for the rule "all", else a quantity
    changes: tuple = ()  # {date, kind, was, why}, oldest first
    tried: str = ""  # what bounds it and what was tried, told where it is not met

    def __post_init__(self):
        if self.rule not in RULES:
            raise self._wrong(f"rule {self.rule!r} is not one of {', '.join(RULES)}")
        if self.sort not in ("", *SORTS):
            raise self._wrong(f"sort {self.sort!r} is not one of {', '.join(SORTS)}")
        if not self.sort:
            object.__setattr__(self, "sort", "identity" if self.rule == "all" else "quantity")
        bound = bool(self.against) or math.isfinite(self.value)
        if self.rule != "all" and (self.op not in OPERATORS or not bound):
            raise self._wrong(f"{self.op} {self.value} is no bound: give op and value")
        for change in self.changes:
            if set(change) != {"date", "kind", "was", "why"} or change["kind"] not in CHANGES:
                kinds = f"a kind of {', '.join(CHANGES)}"
                raise self._wrong(f"a change has date, was, why and {kinds}, not {change}")

    def _wrong(self, why: str) -> ValueError:
        return ValueError(f"bar {self.id!r}: {why}")

    @property
    def threshold(self) -> str:
        """The bound in words: "≤ 0.1 %"."""
        if self.rule == "all":
            return "all"
        value, digits = abs(self.value), RATIO_DIGITS if self.unit == "×" else 4
        value = brief(number(value, digits)) if self.against else raised(f"{value:,g}")
        value = MINUS + value if self.value < 0 else value
        text = f"{SIGNS[self.op]} {value}{' ' * (self.unit != '×')}{self.unit}".rstrip()
        return f"{text}, {self.against}" if self.against else text

    def at(self, value: float | None) -> "Bar":
        """This bar with its measured bound; ValueError where it has one of its own, or lacks it."""
        if bool(self.against) != (value is not None):
            held = self.against and f"is held against {self.against}: give it"
            raise ValueError(f"bar {self.id!r} {held or 'has its own bound'}")
        return replace(self, value=float(value)) if self.against else self

    def verdict(self, measured, interval=None) -> str:
        """`pass`, `fail` or `undecided`; `measured` is a number, or (count, total) of rule "all".
        An interval of NaN, where there is no spread to make one of, decides nothing.

        ValueError where an interval is missing, given in vain, not ordered or not finite."""
        if self.rule == "all":
            count, total = measured
            if not 0 <= count <= total or total < 1:
                raise self._wrong(f"{count} of {total} is no share: nothing was checked")
            return PASS if count == total else FAIL
        if math.isnan(measured):
            raise ValueError(f"bar {self.id!r} was measured as nan: nothing can be said of it")
        if (self.rule == "interval") != (interval is not None):
            asks = "needs its 95 % interval" if interval is None else "takes no interval"
            raise ValueError(f"bar {self.id!r} has the rule {self.rule!r} and {asks}")
        ends = [measured] if interval is None else list(interval)
        if any(map(math.isnan, ends)):  # one process, or one seed, says nothing of another
            return UNDECIDED
        if interval is not None and not ends[0] <= measured <= ends[1]:
            raise ValueError(f"bar {self.id!r}: {measured} lies outside its own interval {ends}")
        right = {bool(OPERATORS[self.op](end, self.value)) for end in ends}
        return UNDECIDED if len(right) == 2 else PASS if right == {True} else FAIL

    def worst(self, cases: dict) -> str:
        """The name of the case that is hardest for this bar, of {name: (measured, interval)}."""
        sign = 1 if self.op.startswith("<") else -1
        rank = {PASS: 0, UNDECIDED: 1, FAIL: 2}

        def hardness(name):
            measured, interval = cases[name]
            end = measured if interval is None else interval[1 if sign == 1 else 0]
            return rank[self.verdict(measured, interval)], sign * end

        return max(cases, key=hardness)

    def told_worse(self, cases: dict, of: str) -> str:
        """Where another case than the hardest, `of`, has the worse estimate, as it is written: what
        it is, in words; "" where none has."""
        sign = 1 if self.op.startswith("<") else -1
        worse = max(cases, key=lambda name: sign * cases[name][0])
        its, own = (written(cases[name][0], self.unit, cases[name][1]) for name in (worse, of))
        return "" if its == own else f"the worst estimate, {its}, is that of {worse}"


@dataclass(frozen=True)
class Dropped:
    """A bar that is asked no more: its bound in words, the day it was first written, the day it was
    dropped, and why."""

    id: str
    statement: str
    bound: str
    written: object
    dropped: object
    why: str


def tally(rows: list[dict]) -> dict:
    """How many of our own rows have which verdict: {"exact", "quantities"}, each {pass, fail,
    undecided, total}; `exact` are identities and byte counts."""

    def count(chosen):
        verdicts = [row["verdict"] for row in chosen]
        return {v: verdicts.count(v) for v in VERDICTS} | {"total": len(verdicts)}

    exact = [row for row in rows if row.get("sort") in ("identity", "size")]
    return {"exact": count(exact), "quantities": count([r for r in rows if r not in exact])}


def told(rows: list[dict]) -> list[str]:
    """Of rows of ours that do not pass: a line of Markdown each, what was measured, what was asked,
    and by its numbers why that is missed, or not decided."""
    return [_told(row) for row in rows if row["verdict"] in (FAIL, UNDECIDED)]


def unmet(rows: list[dict]) -> str:
    """Of all rows those of ours that do not pass, as a paragraph and a list of Markdown."""
    lines = told([row for row in rows if "kind" not in row])
    if not lines:
        return "Every bar is met."
    return "\n- ".join(["Bars that are not met, or not surely:\n", *lines])


def _told(row):
    case = "; ".join(literal(row[name]) for name in ("case", "also") if row.get(name))
    case = f" ({case})" if case else ""
    shown = f"{written(row['measured'], row['unit'], row['interval'])} "
    shown += interval_text(row["interval"], row.get("bound"))
    link = f"[`{row['id']}`](#claim-{row['id']}), {row['verdict']}{case}"
    return f"{link}: {shown.strip()}, asked {row['threshold']}. {_why(row)}"


def _why(row):
    """Why a row is missed or undecided: where its estimate and its interval lie."""
    value, ends, bound = row["measured"], row["interval"], row.get("bound")
    if bound is None:  # of the rule "all"
        return "Not all of them hold."
    if row["verdict"] == UNDECIDED and (not ends or any(map(math.isnan, ends))):
        return "There is no spread to make an interval of."
    right = OPERATORS[row["op"]](value, bound)
    off = abs(value - bound)
    of = f"{number(100 * off / abs(bound), 2)} % of the bar" if bound else ""
    share = of or f"{number(off, 2)} {row['unit']}".rstrip()
    if value == bound:
        where = "The estimate is the bar itself"
    else:
        where = f"The estimate {'meets' if right else 'misses'} it by {share}"
    if row["verdict"] == FAIL:
        return f"{where}{', and so does the whole interval' if ends and ends[0] < ends[1] else ''}."
    reach = value - ends[0] if (row["op"][0] == ">") == right else ends[1] - value
    if off and reach > off:
        times = f"{number(reach / off, 2)} times" if reach > 2 * off else _percent(1 - off / reach)
        what = "this case" if row.get("also") else "it"
        return f"{where}; an interval {times} narrower would decide {what}."
    return f"{where}, an end of its interval."


def _percent(share):
    return f"{number(100 * share, 2)} %"


def read(path: Path = BARS) -> dict[str, Bar]:
    """The bars by id; ValueError names a bar that is written twice or is not whole."""
    return by_id(path, "bar", Bar, "changes")


def by_id(path: Path, kind: str, make, several: str) -> dict:
    """The rows `kind` of a TOML file, in its order, as `make` takes them, their list `several` a
    tuple; ValueError names one that is written twice."""
    found = {}
    for row in tomllib.loads(Path(path).read_text(encoding="utf-8"))[kind]:
        if row["id"] in found:
            raise ValueError(
                f"{Path(path).name} lists {row['id']!r} twice: give each {kind} its own id"
            )
        found[row["id"]] = make(**{**row, several: tuple(row.get(several, ()))})
    return found


def changed(rows: list[dict]) -> dict:
    """How many of these rows' bars are not as they were first written (`bars`), how many changes
    these had (`changes`), and the changes by kind, [(in words, [(bar, row, change)])]."""
    known = read()
    own = [(known[row["id"]], row) for row in rows if row["id"] in known]
    every = [(bar, row, change) for bar, row in own for change in bar.changes]
    kinds = [
        (told, [it for it in every if it[2]["kind"] == kind]) for kind, told in CHANGES.items()
    ]
    return {
        "bars": sum(bool(bar.changes) for bar, _ in own),
        "changes": len(every),
        "kinds": [(told, found) for told, found in kinds if found],
    }


def unasked(rows: list[dict]) -> list[Bar]:
    """The bars that none of these rows judges."""
    judged = {row["id"] for row in rows}
    return [bar for id, bar in read().items() if id not in judged]


def dropped(path: Path = BARS) -> list[Dropped]:
    """The bars that are asked no more, in the order in which they were dropped."""
    rows = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("dropped", ())
    return sorted((Dropped(**row) for row in rows), key=lambda bar: bar.dropped)


def find(known: dict, id: str, kind: str = "bar", path: Path = BARS):
    """What is `known` by `id`, a bar unless `kind` and its file say otherwise; ValueError names the
    closest one."""
    if id not in known:
        near = difflib.get_close_matches(id, known, n=1, cutoff=0)[0]
        raise ValueError(f"{kind} {id!r} is not in {path.name}: did you mean {near!r}?")
    return known[id]
