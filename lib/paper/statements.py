"""What the original report states, and the rule that judges each statement.

A statement stands in data/seed_claims.toml with its kind, its rule and the setting where its
question can be answered; a chapter only measures. Two verdicts are derived, one at the original's
own setting and one of the answer:

    holds            equal at the digits stated, in the interval, or wholly on the right side
    does not hold    the opposite
    better is possible   of an answer: not as stated, but beyond it on the side that is better
    arithmetic slip  the same of what follows by counting or from its own numbers
    not comparable   the machine or the corpus decides, and neither is the original's; always of a
                     time that another machine took, which ours may meet by chance
    undecided        the interval holds both answers, or a single run gives none
    not examined     nothing was measured at this setting"""

import math
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import bars
from .bars import OPERATORS, SIGNS
from .numerals import MINUS

LEDGER = Path(__file__).resolve().parents[2] / "data" / "seed_claims.toml"
HOLDS, FAILS, SLIP = "holds", "does not hold", "arithmetic slip"
BETTER = "better is possible"
INCOMPARABLE, UNDECIDED, UNEXAMINED = "not comparable", "undecided", "not examined"
VERDICTS = (HOLDS, BETTER, FAILS, SLIP, INCOMPARABLE, UNDECIDED, UNEXAMINED)
DEFAULT_RULES = {
    "setting": "equal",
    "arithmetic": "equal",
    "measurement": "interval",
    "conclusion": "bar",
    "process": "bar",
    "future": "bar",
}
KINDS = tuple(DEFAULT_RULES)
ANSWER_ONLY = ("process", "future")  # nothing of them can be measured at the original's setting
RULES = ("equal", "interval", "bar")
WHO = ("machine", "corpus")  # decides where figures of two places differ
TIMES = ("µs", "ms", "s")  # units of what a machine's own clock said
SIDES = ("above", "below")  # of the value stated, where more than was stated is better
WITHIN = "within"  # |x| <= value
SIGN = {**SIGNS, WITHIN: "within ±"}
SYMBOLS = ("×", "%", "nats")  # units that a bar is written with; words stand beside the value


@dataclass(frozen=True)
class Statement:
    """One statement of the original report; ValueError names the field that is wrong."""

    id: str
    section: str
    quote: str
    statement: str
    seed_value: object
    unit: str
    notebook: str
    kind: str
    how: str
    sections: tuple = ()
    rule: str = ""  # "" the default of its kind
    op: str = ""
    value: float | None = None
    step: float | None = None  # unit of the last digit stated; None: as the number shows it
    decides: str = ""
    answered_at: str = ""
    better: str = ""  # side of the value stated on which an answer is better than stated
    own: str = ""  # the statement whose number, the original's own, speaks to this bar
    seed_unit: str = ""  # unit of the value stated, where it is not that of what is measured
    note: str = ""  # what is to be said beside the numbers, over values that the chapter gives
    printed: bool = False  # of arithmetic: it follows from numbers that the original prints

    def __post_init__(self):
        if self.kind not in KINDS:
            self._refuse(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        object.__setattr__(self, "rule", self.rule or DEFAULT_RULES[self.kind])
        if self.rule not in RULES:
            self._refuse(f"rule {self.rule!r} is not one of {', '.join(RULES)}")
        known = _number(self.value) and math.isfinite(self.value)
        bound = self.op in (*OPERATORS, WITHIN) and known
        if bound != (self.rule == "bar") or bool(self.op) != (self.value is not None):
            self._refuse(f"rule {self.rule!r} with op {self.op!r} and value {self.value}")
        if self.rule == "interval" and not _number(self.seed_value):
            self._refuse(f"{self.seed_value!r} is no number that can lie in an interval")
        if self.decides and (self.kind != "measurement" or self.decides not in WHO):
            self._refuse(f"decides {self.decides!r}: only of measurements, one of {', '.join(WHO)}")
        if self.better and (self.better not in SIDES or self.rule != "equal"):
            self._refuse(f"better {self.better!r}: of what is equal, one of {', '.join(SIDES)}")
        if self.printed and self.kind != "arithmetic":
            self._refuse(f"printed: of kind arithmetic alone, not of {self.kind!r}")
        if self.own and self.rule != "bar":
            self._refuse(f"own {self.own!r} needs a bar that it meets or not")
        if self.kind in ANSWER_ONLY and not self.answered_at:
            self._refuse(f"kind {self.kind!r} needs answered_at: it has no other setting")

    def _refuse(self, why):
        raise ValueError(f"{LEDGER.name}: {self.id!r}: {why}")

    @property
    def threshold(self) -> str | None:
        """The bar in words, "< 1 %" or "≤ 0"; None for the other rules."""
        if self.rule != "bar":
            return None
        symbol = self.unit.replace(",", " ").partition(" ")[0]
        symbol = symbol if symbol in SYMBOLS else ""
        sign = SIGN[self.op] + ("" if self.op == WITHIN else " ")
        value = f"{self.value:,g}".replace("-", MINUS)
        return f"{sign}{value}{'' if symbol == '×' else ' '}{symbol}".rstrip()

    @cached_property
    def half(self) -> float:
        """Half a unit of the last digit stated: 0.005 of 1.88, 0 of a whole number or a setting."""
        if self.step is not None:
            return self.step / 2
        digits = len(repr(self.seed_value).partition(".")[2])
        exact = self.kind == "setting" or not isinstance(self.seed_value, float)
        return 0.0 if exact else 0.5 * 10**-digits

    def verdict(self, measured, interval=None) -> str:
        """The verdict at the original's own setting; None was not measured. ValueError where the
        call does not suit the statement."""
        if self.kind in ANSWER_ONLY and measured is not None:
            raise ValueError(
                f"audit {self.id!r} is of kind {self.kind!r} and cannot be measured at the "
                f"original's setting: give {measured!r} as answer="
            )
        found = self._judge(measured, interval)
        return SLIP if found == FAILS and self.kind == "arithmetic" else found

    def answer_verdict(self, answer, interval=None) -> str:
        """The verdict where the question can be answered, by the same rule."""
        if answer is not None and not self.answered_at:
            raise ValueError(
                f"audit {self.id!r} takes no answer: its ledger row names no setting for one "
                "(answered_at)"
            )
        found = self._judge(answer, interval)
        return BETTER if found == FAILS and self._beyond(answer) else found

    def met_by(self, value: float) -> bool:
        """Whether the bar is met by a number that stands for itself."""
        return self._sides(value, value) == {True}

    def _beyond(self, answer) -> bool:
        """Whether an answer lies on the side of the value stated that is better."""
        more = {"above": 1, "below": -1}.get(self.better, 0)
        return more * (answer - self.seed_value) > 0 if more else False

    def _judge(self, measured, interval):
        if measured is None and interval is None:
            return UNEXAMINED
        self._check(measured, interval)
        if self.decides == "machine" and self.unit in TIMES:
            return INCOMPARABLE
        ends = [measured] if interval is None else list(interval)
        if _number(measured) and any(map(math.isnan, ends)):
            return UNDECIDED
        right = self._right(measured, ends)
        if len(right) == 2:
            return UNDECIDED
        return HOLDS if right == {True} else INCOMPARABLE if self.decides else FAILS

    def _right(self, measured, ends) -> set[bool]:
        """Whether it holds at all points between the ends: {True}, {False}, or both."""
        if self.rule == "bar":
            return self._sides(min(ends), max(ends))
        if not _number(measured):
            return {measured == self.seed_value}
        slack = self.half + 1e-9 * abs(self.seed_value)
        return {min(ends) - slack <= self.seed_value <= max(ends) + slack}

    def _sides(self, low, high) -> set[bool]:
        if self.op != WITHIN:
            return {OPERATORS[self.op](end, self.value) for end in (low, high)}
        inside = {abs(end) <= self.value for end in (low, high)}
        return inside | {True} if low < 0 < high else inside  # a wide interval holds 0 as well

    def _check(self, measured, interval):
        """ValueError in one line where measured or interval is not what the rule takes."""
        name = f"audit {self.id!r}"
        words = isinstance(self.seed_value, str) and self.rule == "equal"
        if isinstance(measured, str) != words or (not words and not _number(measured)):
            asks = f"states {self.seed_value!r}: give words" if words else "give a number"
            raise ValueError(f"{name} was measured as {measured!r}: {asks}")
        if not words and not math.isfinite(measured):
            raise ValueError(f"{name} was measured as {measured}: give a finite number, or None")
        needs = self.rule == "interval" or self.kind == "measurement"
        if interval is None:
            if needs:
                raise ValueError(
                    f"{name} is judged by an interval and has none: give (low, high) of one "
                    "further run, (nan, nan) where a single run gives none"
                )
            return
        if self.rule == "equal":
            raise ValueError(f"{name} is compared exactly and takes no interval: {interval}")
        low, high = interval
        if math.isnan(low) and math.isnan(high):
            return
        if not (math.isfinite(low) and math.isfinite(high) and low <= measured <= high):
            raise ValueError(
                f"{name}: interval ({low}, {high}) is not finite, or {measured} lies outside it: "
                "give (low, high) around what was measured"
            )


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read(path: Path = LEDGER) -> dict[str, Statement]:
    """The statements by id, in the order of the original report; ValueError names one that is
    written twice or is not whole."""
    return bars.by_id(path, "claim", Statement, "sections")


def sections(path: Path = LEDGER) -> dict[str, str]:
    """The headings of the original report by their numbers."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))["sections"]


def find(ledger: dict, id: str):
    """The statement `id`; ValueError names the closest one."""
    return bars.find(ledger, id, "audit", LEDGER)
