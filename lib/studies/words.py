"""Numbers in the sentences that studies hand over whole."""


def minus(text: str) -> str:
    """A number's text with a true minus, as the page sets those that it formats itself."""
    return text.replace("-", "\u2212")
