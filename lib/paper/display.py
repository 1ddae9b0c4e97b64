"""What a notebook shows: each function displays one output that reads well in JupyterLab and
carries, in its metadata under "minitransformer", everything the HTML report needs to set it
properly.

    kind "figure"       id, alt, csv, width, height, overlaps     PNG, and of a figure of ours SVG
                        (what its labels cover)
    kind "table"        id, csv                                   plain HTML table
    kind "text"         id, csv                                   words with shades and titles
    kind "say"          none                                      Markdown
    kind "answer"       text                                      Markdown; stands under the
chapter's question
    kind "claim"        id                                        one line; the report takes the row
from claims.json
    kind "certificate"  title, statement, rows, passed, ruler, claim
    kind "negative"     title, expected, found, why, claim
    kind "echo"         none                                      a receipt, for JupyterLab only;
                                                                  the report drops it

The caption of a figure, table or text stands in the notebook, see `paper.captions`.

Plain HTML only: an executed notebook is untrusted, so JupyterLab strips <style> and scripts from
it."""

import base64
import html
import math
import struct
from contextlib import suppress

import numpy as np
import pandas as pd
from IPython.display import display

from .boxes import overlaps
from .canvas import ORDER, PALETTE, LiteralFigure, png_bytes
from .claims import audited, settled
from .marks import interval_text, measured, stated, written
from .numerals import MOST, column, fixed, heading, number, readable, supported
from .svg import svg_text
from .words import seen

KEY = "minitransformer"


def show_figure(fig, id, alt, csv=None) -> bytes:
    """Display a matplotlib Figure; `csv` is the path, relative to the run, of what it draws.
    Returns its PNG.

    `fig` may also be the PNG's bytes. A figure of ours is shown as SVG too, which JupyterLab and
    the page prefer, and tells in its metadata what its labels cover. Raises ValueError if the alt
    text is empty."""
    if not alt.strip():
        raise ValueError(
            f"figure {id!r} has no alt text: draw it with a function of paper.figures, or give "
            "alt= one to three sentences computed from the data"
        )
    png = fig if isinstance(fig, bytes) else png_bytes(fig)
    width, height = struct.unpack(">II", png[16:24])  # the IHDR chunk comes first, at a fixed place
    about = {"kind": "figure", "id": id, "alt": alt, "csv": csv, "width": width, "height": height}
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": f"Figure {id}: {alt}"}
    if isinstance(fig, LiteralFigure):
        about["overlaps"] = overlaps(fig)
        with suppress(NotImplementedError):  # somebody has put a picture into it
            data["image/svg+xml"] = svg_text(fig, alt)
    size = {"width": width // 2, "height": height // 2, "alt": alt}  # drawn at twice the CSS size
    _show(data, about, {"image/png": size})
    return png


def show_table(df, id, csv=None, more=0):
    """Display a DataFrame as a plain HTML table; numbers are set by `readable`.

    A default RangeIndex is left out; any other index becomes the row heads; a number and the `low`
    and `high` that follow it share a column, with `more` decimals than its interval supports."""
    index = not isinstance(df.index, pd.RangeIndex)
    shown = readable(joined(df, more)).rename(columns=heading)
    with pd.option_context("display.html.use_mathjax", False, "display.max_colwidth", None):
        body = shown.to_html(border=0, index=index, index_names=index, na_rep="–")
    about = {"kind": "table", "id": id, "csv": csv}
    _show({"text/html": body, "text/plain": shown.to_string(index=index)}, about)


def show_text(df, id, csv=None, *, word, kind, shade, between=" "):
    """Display a text of words, a row of `df` each, colored by the category `kind`, the stronger the
    larger the column `shade`; what the columns say of a word is its title, a line each.

    Below zero is as zero; the strongest has the 95th percentile or more. The kinds differ by their
    underline as well. Raises ValueError if there are more kinds than colors."""
    names = list(df[kind].cat.categories)
    if len(names) > len(ORDER):
        raise ValueError(f"text {id!r} has {len(names)} kinds: give at most {len(ORDER)}")
    top, codes = max(float(df[shade].quantile(0.95)), 1e-9), df[kind].cat.codes
    shown = df.rename(columns=heading).astype(object)
    for place, dtype in enumerate(df.dtypes):
        if dtype.kind == "f":
            shown.isetitem(place, column(df.iloc[:, place]))
    rows = zip(df[word], codes, df[shade], shown.to_dict("records"), strict=True)
    words = between.join(_word(text, k, value / top, row) for text, k, value, row in rows)
    key = "".join(_word(name, i, 0.5) for i, name in enumerate(names) if (codes == i).any())
    scale = f"Faintest: {heading(shade)}, 0 or less; strongest: {number(top, 2)} or more."
    body = f'<p class="kinds">{key} <small>{scale}</small></p>\n<p class="words">{words}</p>'
    about = {"kind": "text", "id": id, "csv": csv}
    _show({"text/html": body, "text/plain": between.join(df[word])}, about)


def _word(text, kind, part, told=()):
    """A word in the color of its kind, a `part` of the strongest, over any ground."""
    r, g, b = (int(PALETTE[ORDER[kind]][0][i : i + 2], 16) for i in (1, 3, 5))
    alpha = 0.06 + 0.44 * min(max(part, 0), 1)
    lines = (f"{name}: {value}".replace("\n", "↵") for name, value in dict(told).items())
    title = html.escape("\n".join(lines))
    color = f"background-color: rgba({r}, {g}, {b}, {alpha:.2f})"
    title, text = title and f' title="{title}"', html.escape(text).replace("\n", "↵\n")
    return f'<span class="k{kind}" style="{color}"{title}>{text}</span>'


def joined(df, more=0):
    """A copy in which a column of numbers and the interval that follows it, in columns that end in
    "low" and "high", are one column of texts: 1.81 [1.76, 1.85]. Where the interval is the number
    itself, or none, the number stands alone."""
    out, names = df.copy(), list(df.columns)
    for name, low, high in zip(names, names[1:], names[2:], strict=False):
        ends = isinstance(low, str) and low.endswith("low") and high == f"{low[:-3]}high"
        apart = {name, low, high} <= {*out}  # none of them is an end of an interval before
        if ends and apart and all(df[each].dtype.kind in "fi" for each in (name, low, high)):
            known = (df[each].astype(float) for each in (name, low, high))
            out[name] = _with_interval(*known, more)
            out = out.drop(columns=[low, high])
    return out


def _with_interval(values, lows, highs, more=0):
    """Numbers with their intervals: as many decimals as each interval supports, and no more than
    the column's median interval does where they are near each other, but for ends that would be
    one, or written as 0 or 1, by which one sees a change; three digits of what has none."""
    wide = np.flatnonzero(highs - lows > 1e-6 * np.abs(highs))  # not those of rounding alone
    ends = [(lows.iloc[i], highs.iloc[i]) for i in wide]
    each = [supported(*pair) or 0 for pair in ends]
    most = int(np.median(each)) if ends and max(each) - min(each) < 3 else MOST
    found = [number(value if value else 0, 3 + more) for value in values]  # zero: no decimals
    for i, pair in zip(wide, ends, strict=True):
        own = supported(*pair)
        if own is None or own > MOST or np.isnan(values.iloc[i]):
            found[i] = f"{written(values.iloc[i], '', pair)} {interval_text(pair)}"
            continue
        count = min(own, most)
        while count < own and (
            len(near := {round(end, count) for end in pair}) == 1 or near & {0, 1}
        ):
            count += 1
        value, low, high = (fixed(x, count + more) for x in (values.iloc[i], *pair))
        found[i] = f"{value} [{low}, {high}]"
    return found


def show_markdown(text):
    """Display a computed reading, written in Markdown with $...$ mathematics."""
    _show({"text/markdown": text, "text/plain": text}, {"kind": "say"})


def show_answer(text):
    """Display the chapter's answer, one computed sentence in Markdown, its number in **bold**."""
    data = {"text/markdown": f"*Answer.* {text}", "text/plain": f"Answer. {text}"}
    _show(data, {"kind": "answer", "text": text})


def show_claim(row):
    """Display a row of claims.json as a line: id, verdict, statement, what was measured and asked,
    its answer where it has one, and of a bar that is not met what was tried."""
    found = []
    if row["measured"] is not None:
        found.append(measured(row) + _against(row))
    if row.get("answer") is not None:
        answer = written(row["answer"], row["unit"], row["answer_interval"])
        answer = f"{answer} {interval_text(row['answer_interval'])}".rstrip()
        found.append(f"{row['answered_at']}: {answer}, {row['answer_verdict']}")
    verdict = settled(row)
    told = f"{row['statement'].rstrip('.')}: {'; '.join(found) or 'not examined'}"
    told += f". {row['tried']}" if row.get("tried") else ""
    body = f"<p><code>{html.escape(row['id'])}</code> <b>{verdict}</b>: {html.escape(told)}</p>"
    plain = f"{row['id']} {verdict}: {told}"
    _show({"text/html": body, "text/plain": plain}, {"kind": "claim", "id": row["id"]})


def _against(row):
    """ " [3.8, 4.0] (threshold ≥ 3.7×)", its interval, " (asked < 1 %)" or " (original report
    1.95×)", before it where it was computed from that report's own numbers; "" for none of them."""
    ends = f" {interval_text(row.get('interval'), row.get('bound'))}".rstrip()
    if row["threshold"]:
        return f"{ends} ({'asked' if audited(row) else 'threshold'} {row['threshold']})"
    said = f" (original report {stated(row['seed_value'], row.get('seed_unit'))})"
    own = " (from its own numbers)" if row.get("printed") else ""
    return ends + (own + said if audited(row) else "")


def show_echo(text):
    """Display a line for whoever runs the notebook; the report leaves it out."""
    _show({"text/plain": text}, {"kind": "echo"})


def show_certificate(title, statement, rows, passed, ruler=None, claim=None):
    """Display a machine-checked statement: `rows` of (what, measured, bound) and, optionally,
    `ruler` = (error, margin).

    The ruler draws both on one logarithmic scale: the room between them is the proof. An error of 0
    is allowed. Raises ValueError if the ruler holds a negative or non-finite number, or a margin of
    0."""
    if ruler is not None and not (
        all(math.isfinite(x) for x in ruler) and ruler[0] >= 0 and ruler[1] > 0
    ):
        raise ValueError(
            f"certificate {title!r}: ruler {tuple(ruler)} is not (error >= 0, margin > 0): "
            "give two finite numbers"
        )
    rows = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    about = {"kind": "certificate", "title": title, "statement": statement, "rows": rows}
    about |= {"ruler": None if ruler is None else [float(x) for x in ruler]}
    about |= {"passed": bool(passed), "claim": claim}
    verdict = "pass" if passed else "fail"
    lines = "".join(
        f"<tr><td>{html.escape(a)}</td><td><b>{html.escape(b)}</b></td><td>{html.escape(c)}</td></tr>"
        for a, b, c in rows
    )
    body = (
        f"<h4>Certificate: {html.escape(title)} ({verdict})</h4><p>{html.escape(statement)}</p>"
        f"<table><thead><tr><th>what</th><th>measured</th><th>bound</th></tr></thead><tbody>{lines}</tbody></table>"
    )
    told = [f"Certificate: {title} ({verdict})", statement, *(" | ".join(row) for row in rows)]
    _show({"text/html": body, "text/plain": "\n".join(told)}, about)


def show_negative(title, expected, found, why, claim=None):
    """Display a negative result where the positive one would have stood: expected, found (with its
    interval), why."""
    about = {"kind": "negative", "title": title, "claim": claim}
    about |= {"expected": expected, "found": found, "why": why}
    parts = {"Expected": expected, "Found": found, "Why": why}
    body = f"<h4>Negative result: {html.escape(title)}</h4>" + "".join(
        f"<p><b>{name}.</b> {html.escape(text)}</p>" for name, text in parts.items()
    )
    told = [f"Negative result: {title}", *(f"{name}. {text}" for name, text in parts.items())]
    _show({"text/html": body, "text/plain": "\n".join(told)}, about)


def _show(data, about, extra=None):
    display(seen(data), raw=True, metadata=seen({KEY: about, **(extra or {})}))
