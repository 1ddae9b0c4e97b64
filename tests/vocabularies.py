"""How a reader finds the tokens of a vocab.txt again."""


def vocabulary_of(path):
    """The tokens of a vocab.txt in the order of their ids, exactly: a line that holds a backslash
    is written with Python's `unicode_escape`, any other as it is."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [line.encode().decode("unicode_escape") if "\\" in line else line for line in lines]
