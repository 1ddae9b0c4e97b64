"""Numbers in the sentences that studies hand over whole."""


def minus(text: str) -> str:
    """A number's text with a true minus, as the page sets those that it formats itself."""
    return text.replace("-", "\u2212")


def span(values) -> str:
    """Whole numbers in words: the one that all are, or the least and the largest."""
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
