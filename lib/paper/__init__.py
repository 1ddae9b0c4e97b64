"""The executed paper: notebooks run in order, claims collected, provenance kept, one HTML file
rendered.

A notebook needs `open_notebook`; it is imported on first use, because a command that finds nothing
to do needs no figures and data frames."""

# Where to begin reading, by what happens:
#
#   a command is read    __main__, targets, parameters, project
#   stages run           stages (which are not current), schedule, runner, execution, variants
#   a notebook speaks    notebook (its `nb`), display, claims, bars, statements, numerals, words
#   a figure is drawn    figures, rows and panels, on canvas and layout; labels, places; svg
#   the page is made     html, chapter, prose, tables, marks, script; then checks holds it
#   a run is kept        record, provenance, files; publish, idempotence, pack for what leaves it

import sys
from importlib import import_module

# nbformat's schemas name no internationalised addresses. Where jsonschema finds this package, it
# builds a grammar of them for seconds, whenever a notebook is read.
sys.modules.setdefault("rfc3987_syntax", None)

_EXPORTS = {"open_notebook": "notebook"}
__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
