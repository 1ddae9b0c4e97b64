"""For a statement of the original report, a measurement for which it holds and one for which it
does not: (value, interval) as its rule takes them."""

from paper.statements import WITHIN


def holding(said):
    """What makes the statement hold."""
    if said.rule == "equal":
        return said.seed_value, None
    if said.rule == "interval":
        return said.seed_value, _around(said.seed_value, said)
    inside = {"<": -1, "<=": 0, ">": 1, ">=": 0, WITHIN: -1}[said.op]
    return _with_interval(said, said.value + inside * _step(said))


def failing(said):
    """What makes it not hold."""
    if said.rule == "equal":
        if isinstance(said.seed_value, str):
            return said.seed_value + ", and something else", None
        return said.seed_value + 2 * max(said.half, _step(said)), None
    if said.rule == "interval":
        value = said.seed_value + 3 * max(said.half, _step(said))
        return value, _around(value, said)
    outside = {"<": 0, "<=": 1, ">": 0, ">=": -1, WITHIN: 1}[said.op]
    return _with_interval(said, said.value + outside * _step(said))


def _step(said):
    number = said.value if said.rule == "bar" else said.seed_value
    return abs(number) / 2 or 1.0


def _around(value, said):
    return value - _step(said) / 2, value + _step(said) / 2


def _with_interval(said, value):
    """A bar's value, with an interval of no width where the kind asks for one."""
    return value, ((value, value) if said.kind == "measurement" else None)
