"""The `nb` object: what a chapter's notebook reads, writes, shows and claims."""

import os
import re
import sys
import warnings
from inspect import getsource
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

from IPython import get_ipython
from IPython.display import Code
from tqdm import tqdm

from . import bars, claims, display, statements, variants
from .captions import captions, need
from .files import read_json, write_bytes, write_json, write_text
from .kernel import running
from .numerals import names, told
from .parameters import cells, check, known_parameters, notes, preflight, resolve
from .project import Project
from .warm import OUT
from .words import csv_text, literal

ID = re.compile(r"[a-z0-9][a-z0-9_-]*")


def open_notebook(name: str, namespace: dict, start: Path | None = None) -> "Notebook":
    """The guard cell of notebook `name`: checks the parameters in `namespace` (globals()) and
    resolves the folders.

    What the notebook's parameters cell and papermill's say counts, nothing else in the kernel; it
    is written back in its parameter's type, so that names and `nb.params` agree. Raises
    ParameterError for an unknown name, a wrong value, or values that the chapter and those before
    it cannot use; FileNotFoundError outside a checkout."""
    project = Project.find(start)
    known, saved = known_parameters(project.notebooks), cells(project.notebooks)
    values, explicit = running(namespace, name, saved)
    values = check(values, known)
    given = {n: v for n, v in values.items() if n in explicit or v != known[n]}
    own = saved.get(name, known)
    params = resolve(project.notebooks, given.get("profile", "quick"), given, frozenset(own))
    alone = not params.get("run_dir")
    if params.get("corpus"):
        found = project.corpus_file(params["corpus"], *([Path.cwd()] if alone else []))
        params["corpus"] = str(found or params["corpus"])
    if alone:  # the runner has checked all of them, also those this notebook does not have
        preflight(project, params, (*project.upstream(name), name))
        for line in notes(project.notebooks, params, name):
            display.show_echo(line)
    mine = {n: params[n] for n in own}
    namespace.update(mine)
    settle(mine.get("threads"))
    return Notebook(name, project, mine, params)


def settle(threads: int | None) -> None:
    """Puts the kernel into the state every chapter starts from, whatever ran in it before: its
    threads, gradients on, warnings without the folders of this machine."""
    warnings.formatwarning = plain_warning
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(True)


def plain_warning(message, category, filename, lineno, line=None) -> str:
    """A warning as one line: its kind and what it says, a file by its name alone."""
    text = re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\\/\n:'\"]+[\\/])+", "", str(message))
    return f"{category.__name__}: {' '.join(text.split())}\n"


class Notebook:
    """One notebook at work; see the methods. Everything written is whole: a temporary name, then a
    rename."""

    literal = staticmethod(literal)  # a user's words inside a sentence of Markdown

    def __init__(self, name: str, project: Project, params: dict, all_params: dict):
        self.name, self.project = name, project
        self.params = SimpleNamespace(**params)
        self._all = all_params
        self._rows, self._answer = {}, None
        self._shown = {}  # what each cell shows that has a caption
        self._cells = _cell_ids(project.notebook(name))
        self._ledger, self._bars = claims.seed_claims(), bars.read()
        if all_params.get("run_dir"):
            self.inputs = project.root / all_params["run_dir"]
            self.out = Path(os.environ.get(OUT) or self.inputs)
        else:
            self.inputs, self.out = variants.alone(project, name, all_params)
        self.out.mkdir(parents=True, exist_ok=True)

    def require(self, stage: str) -> Path:
        """The folder that holds what `stage` leaves; a notebook opened alone gets it built at quick
        size first."""
        if not self._all.get("run_dir"):
            variants.ensure(self.project, stage, self._all, self.inputs)
        return self.inputs

    def path(self, name: str) -> Path:
        """Where this notebook writes the artefact `name`; the folder above it exists."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def folder(self, name: str) -> Path | None:
        """A folder that a parameter names, from the project's root; None where it names none."""
        return self.project.root / name if name else None

    def source(self, what) -> Code:
        """How a function or a class is written, to be shown at the end of a cell."""
        return Code(dedent(getsource(what)), language="python")

    def write_json(self, name: str, value) -> Path:
        return write_json(self.out / name, value)

    def write_csv(self, name: str, df) -> Path:
        return write_text(self.out / name, csv_text(df))

    def figure(self, fig, id: str, *, data=None, alt: str = "") -> None:
        """Saves figures/<id>.png and the DataFrame it draws as figures/<id>.csv, and shows it.

        A figure of ours knows its table and its words: `data` and `alt` are for others. Its caption
        is the Markdown cell below, tagged `caption`; so is that of a table or text."""
        self._captioned("figure", id)
        data = getattr(fig, "data", None) if data is None else data
        if data is None:
            raise ValueError(f"figure {id!r} does not know what it draws: give its table as data=")
        alt, fig = alt or getattr(fig, "alt", ""), getattr(fig, "figure", fig)
        png = display.show_figure(fig, id, alt, csv=f"figures/{id}.csv")
        write_bytes(self.out / "figures" / f"{id}.png", png)
        self.write_csv(f"figures/{id}.csv", data)
        if "matplotlib.pyplot" in sys.modules and not isinstance(fig, bytes):
            sys.modules["matplotlib.pyplot"].close(fig)  # or the inline backend shows it again

    def table(self, df, id: str, *, more: int = 0) -> None:
        """Saves tables/<id>.csv and shows the DataFrame, unless it has no row; `more` as
        `display.show_table` takes it."""
        if df.empty:
            return
        self._captioned("table", id)
        display.show_table(df, id, csv=f"tables/{id}.csv", more=more)
        self.write_csv(f"tables/{id}.csv", df)

    def text(self, df, id: str, **how) -> None:
        """Saves tables/<id>.csv and shows the words of a DataFrame as a shaded text; `how` as
        `display.show_text` takes it."""
        self._captioned("text", id)
        display.show_text(df, id, csv=f"tables/{id}.csv", **how)
        self.write_csv(f"tables/{id}.csv", df)

    def say(self, template: str, **values) -> None:
        """A reading whose numbers were computed: named values with their formats, "{x:.2f}"; where
        there is nothing to say, nothing is shown."""
        if sentence := told(template, values):
            display.show_markdown(sentence)

    def answer(self, template: str, **values) -> None:
        """The chapter's answer in one computed sentence; the report puts it under the question."""
        sentence = told(template, values)
        if not sentence.strip():
            raise ValueError(f"{self.name}: the answer is empty: give one computed sentence")
        self._answer = sentence
        display.show_answer(sentence)

    def negative(self, title: str, expected: str, found: str, why: str, claim=None) -> None:
        """A negative result, boxed: what was expected, what was found, why."""
        display.show_negative(title, expected, found, why, claim)

    def certificate(self, title, statement, rows, passed, ruler=None, claim=None) -> None:
        """A machine-checked statement with its measured values and bounds; `ruler` = (error,
        margin) draws the room left."""
        display.show_certificate(title, statement, rows, passed, ruler, claim)

    def bar(self, id, measured=None, interval=None, *, rows=None, value=None, case=None,
            against=None, of="", cell=None) -> dict:  # fmt: skip
        """Judges a bar of data/bars.toml: `measured` with its `interval`, (count, total), or a
        Series of yes and no, which is counted.

        With `rows` every row must meet it, and the hardest stands for all: a DataFrame with a
        column `case` that names each row (None: the first), `value` (None: the one before "low"),
        low and high. Without a row the bar is not asked, which the page tells: {} then. `against`
        is the bound of a bar that is held against a measurement; `of` says what exactly was
        measured. A value and its interval may come as a pair. `cell` None: the running one."""
        bar, also = bars.find(self._bars, id).at(against), ""
        measured, interval = _pair(measured, interval)
        if rows is not None and rows.empty:
            return {}
        if rows is not None:
            value = value or rows.columns[rows.columns.get_loc("low") - 1]
            cases = claims.table_cases(rows, value, case or rows.columns[0])
            measured, interval = cases[of := bar.worst(cases)]
            also = bar.told_worse(cases, of)
        return self._add(claims.bar_row(bar, measured, interval, of, also), cell)

    def audit(self, id, measured=None, interval=None, *, answer=None, answer_interval=None,
              note="", cell=None, **values) -> dict:  # fmt: skip
        """A statement of the original report, by its id in seed_claims.toml, which holds the rule
        that judges it.

        `measured` with its `interval` is at the original's own setting (its model, recipe,
        control corpus, n, repeats), `answer` where the question can be answered; None was not
        examined. A value and its interval may come as a pair. A single run is judged by a
        prediction interval. `note` is a template over `values`, the ledger's where none is given;
        ValueError where the two do not name the same."""
        measured, interval = _pair(measured, interval)
        answer, answer_interval = _pair(answer, answer_interval)
        found = {"answer": answer, "answer_interval": answer_interval}
        template = note or statements.find(self._ledger, id)["note"]
        named = names(template) if values or not note else set()  # a note may come whole
        if odd := sorted(named ^ set(values)):
            raise ValueError(
                f"audit {id!r}: {', '.join(odd)} does not occur in both its note and the call: "
                "verdict and unit are the ledger's, a note names its values as {name}"
            )
        note = told(template, values)
        row = claims.audit_row(self._ledger, id, measured, interval, **found, note=note)
        return self._add(row, cell)

    def stated(self, id: str):
        """What the original report states, a number or words, by the id of its statement."""
        return statements.find(self._ledger, id)["seed_value"]

    def audits(self, found: dict) -> None:
        """`audit` of several statements at the original's own setting: by id what was measured, a
        value or a value and its interval."""
        for id, measured in found.items():
            self.audit(id, measured)

    def progress(self, total, description: str):
        """A tqdm bar over an iterable, or of `total` steps to `update`, which ends with the last;
        TQDM_DISABLE=1 silences it.

        Under the runner it goes to stderr, which a terminal shows, and is erased; elsewhere to
        stdout and stays, because an erased one leaves an empty red box in JupyterLab."""
        what = {"total": total} if isinstance(total, int) else {"iterable": total}
        under = OUT in os.environ
        file = sys.stderr if under else sys.stdout
        return Steps(**what, desc=description, leave=not under, file=file, dynamic_ncols=False)

    def close(self, artefacts=()) -> None:
        """The last cell: FileNotFoundError if an artefact is missing or empty, then writes
        claims/<notebook>.json."""
        for name in artefacts:
            path = self.out / name
            if not (
                any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size
            ):
                raise FileNotFoundError(
                    f"{self.name}: artefact {name} is missing or empty: the cell that writes it "
                    "did not"
                )
        if re.match(r"(\d\d|A\d+)-", self.name) and self._answer is None:
            raise ValueError(
                f"{self.name} has no answer: call nb.answer(...) with one computed sentence before "
                "nb.close"
            )
        write_json(self.out / "claims" / f"{self.name}.json", list(self._rows.values()))
        rows = self._rows.values()
        bars = [row["verdict"] for row in rows if not claims.audited(row)]
        said = [claims.counted(row) for row in rows if claims.audited(row)]
        counted = (
            _counted(bars, "bars", claims.OWN),
            _counted(said, "statements", (claims.COPIED, *claims.AUDIT, claims.ASKED)),
        )
        where = "" if OUT in os.environ else f" in {self.project.relative(self.out)}/"
        display.show_echo(
            f"{self.name}: {len(artefacts)} artefacts checked{where}; {'; '.join(counted)}."
        )

    def _captioned(self, kind: str, id: str) -> None:
        """ValueError for an id that is no slug, and where the running cell, as it is saved, has
        fewer captions below it than it shows."""
        if not ID.fullmatch(id):
            raise ValueError(
                f"{kind} id {id!r} is not a slug: use lower-case letters, digits, hyphens and "
                "underscores"
            )
        path = self.project.notebook(self.name)
        if (cell := running_cell(path)) != "unsaved":
            shown = self._shown.setdefault(cell, set())
            shown.add((kind, id))
            need(
                f"{self.name}, cell {cell!r},", len(shown), captions(read_json(path)["cells"])[cell]
            )

    def _add(self, row: dict, cell: str | None) -> dict:
        cell = cell or running_cell(self.project.notebook(self.name))
        if self._cells and cell not in (*self._cells, "unsaved"):
            raise ValueError(
                f"claim {row['id']!r}: cell {cell!r} is not a cell of {self.name}: give one of "
                f"{', '.join(self._cells)}"
            )
        before = self._rows.get(row["id"])
        if before and before["cell_id"] != cell:
            raise ValueError(
                f"claim {row['id']!r} is made in cell {before['cell_id']!r} and in {cell!r}: give "
                "each its own id"
            )
        row = Row(row, notebook=self.name, cell_id=cell)
        self._rows[row["id"]] = row
        display.show_claim(row)
        return row


class Steps(tqdm):
    """A progress bar that closes itself with its last step."""

    def update(self, n=1):
        super().update(n)
        if self.n >= self.total:
            self.close()


class Row(dict):
    """A row that was displayed when it was made, and is not again where it ends a cell."""

    def _ipython_display_(self):
        pass


def _pair(value, interval) -> tuple:
    """A value and its interval, that come apart or as a pair; counts are a value, as a pair or as a
    Series of yes and no."""
    if hasattr(value, "sum") and value.dtype == bool:
        value = int(value.sum()), len(value)
    paired = isinstance(value, tuple) and len(value) == 2
    if interval is None and paired and (value[1] is None or isinstance(value[1], tuple)):
        return value
    return value, interval


def running_cell(path: Path) -> str:
    """The id of the cell that is being executed: as the client tells it, else the one of the saved
    notebook with this source; "unsaved" for one that was edited since."""
    shell = get_ipython()
    saved = read_json(path, {"cells": []})["cells"]
    told = shell.get_parent().get("metadata", {}).get("cellId") if shell else None
    if told in [cell.get("id") for cell in saved]:
        return told
    source = shell.history_manager.input_hist_raw[-1].strip() if shell else ""
    alike = [cell["id"] for cell in saved if "".join(cell["source"]).strip() == source]
    return alike[0] if alike else "unsaved"


def _counted(verdicts, what, order) -> str:
    """ "3 bars (2 pass, 1 fail)"."""
    told = ", ".join(f"{verdicts.count(v)} {v}" for v in order if v in verdicts)
    return f"{len(verdicts)} {what}" + (f" ({told})" if told else "")


def _cell_ids(path: Path) -> list[str]:
    """The authored cell ids of a notebook, [] where there is no file."""
    return [cell.get("id", "") for cell in read_json(path, {"cells": []})["cells"]]
