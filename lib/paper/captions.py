"""Captions: Markdown cells tagged `caption`, directly below the code cell whose figures, tables and
texts they belong to, one for each, in the order in which it shows them.

They are text, so that the one who draws need not carry them, and JupyterLab sets them below what
they tell of. A cell that may show nothing keeps its captions."""

TAG = "caption"
KINDS = ("figure", "table", "text")  # what is shown with a caption


def captions(cells) -> dict[str, list[str]]:
    """The captions below each code cell, by its id; ValueError for one that follows no code."""
    found, own = {}, None
    for cell in cells:
        if cell["cell_type"] == "code":
            own = found.setdefault(cell.get("id", ""), [])
        elif not is_caption(cell):
            own = None
        elif own is None:
            raise ValueError(
                f"cell {cell.get('id')!r} is a caption and follows no code: move it directly below "
                "the cell that shows its figure or table"
            )
        else:
            own.append("".join(cell["source"]).strip())
    return found


def is_caption(cell) -> bool:
    return TAG in cell["metadata"].get("tags", ())


def need(where: str, shown: int, texts: list[str]) -> None:
    """ValueError unless the `shown` figures and tables of a cell have a caption each."""
    if shown > sum(map(bool, texts)):
        raise ValueError(
            f"{where} shows {shown} and has {sum(map(bool, texts))} captions: write below it a "
            f"Markdown cell tagged {TAG!r} for each figure, table or text, that says what is shown"
        )
