"""A figure as compact SVG: text is text, so the page's own fonts set it and a reader can search and
copy it; colours are those of the palette, so a style sheet turns them over on a dark page.

A backend of matplotlib's of its own and no cleaning of another's output: what is written depends on
the figure alone, is the same every time, and is a third of the size."""

import re
from functools import cache
from html import escape

import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_hex
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox

from .canvas import DPI, INK, INK_2, PALETTE, styled
from .drawing import FAINT
from .matrix import ABOVE, BELOW
from .ticks import SIZE
from .words import spoken, visible

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',Arial,sans-serif"
HATCH_STEP = 7
LETTER = {Path.MOVETO: "M", Path.LINETO: "l", Path.CURVE3: "q", Path.CURVE4: "c"}
COUNT = {Path.CURVE3: 2, Path.CURVE4: 3}  # points of a segment
# What stands for each colour on a dark page: as far from its ground as the light one from white.
DARK = {
    "#ffffff": "var(--paper)", INK: "var(--ink)", INK_2: "var(--ink-2)", "#646c76": "var(--rule-2)",
    "#e3e5e8": "var(--rule)", "#e1e4e7": "#373e45", PALETTE["blue"][0]: "var(--measured)",
    PALETTE["vermilion"][0]: "var(--seed)", PALETTE["teal"][0]: "#4cc39b",
    PALETTE["teal"][1]: "#4cc39b", PALETTE["plum"][0]: "#d39bce", PALETTE["ochre"][0]: "#d9a436",
    PALETTE["ochre"][1]: "#d9a436", PALETTE["grey"][0]: "#9aa1a9", "#000000": "#ffffff",
    ABOVE: "#5590d0", BELOW: "#c27028", FAINT: "var(--panel)",
}  # fmt: skip


def svg_text(fig, alt="") -> str:
    """A figure of ours as SVG, without ids: any number of them may stand on one page.

    NotImplementedError where it holds a picture, which has no such form."""
    renderer = Renderer(*fig.bbox.size)
    with styled():
        fig.draw(renderer)
    return visible(renderer.document(alt))


def stylesheet() -> str:
    """The rules that turn the colours of inline figures over on a dark screen."""
    rules = ['.plot :is(text,g)[fill="#fff"]{fill:#000}']  # numbers in shaded cells
    for light, dark in DARK.items():
        light = _short(light)
        rules.insert(0, f'.plot [stroke="{light}"]{{stroke:{dark}}}')
        rules.insert(0, f'.plot [fill="{light}"]{{fill:{dark}}}')
    return f"@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}"


class Renderer(RendererBase):
    """What matplotlib draws on, at 96 dots an inch: a pixel is a unit of the SVG."""

    def __init__(self, width, height):
        super().__init__()
        self.width, self.height = width, height
        self.flip = Affine2D().scale(1, -1).translate(0, height)
        self.body = []  # (tag, attributes, content)
        self.starts = []  # where groups began whose marks may be drawn in any order
        self.hidden = 0

    def document(self, alt="") -> str:
        """The whole SVG, with its alternative text."""
        size = " ".join(f"{value:g}" for value in (self.width, self.height))
        width, height = size.split()
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {size}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(alt)}" '
            f'font-family="{FONT}" font-size="{_n(self.points_to_pixels(SIZE))}" '
            'style="font-variant-numeric:tabular-nums" fill="none" stroke-linejoin="round">'
            f"{''.join(_element(*part) for part in self.body)}</svg>"
        )

    # What matplotlib asks of a renderer.

    def get_canvas_width_height(self):
        return self.width, self.height

    def points_to_pixels(self, points):
        return points * DPI / 72

    def get_text_width_height_descent(self, s, prop, ismath):
        return _agg().get_text_width_height_descent(s, prop, ismath)

    def open_group(self, s, gid=None):
        self.hidden += bool(self.hidden or gid == "halo")
        if s in ("matplotlib.axis", "PathCollection"):
            self.starts.append((s, len(self.body)))

    def close_group(self, s):
        self.hidden -= bool(self.hidden)
        if self.starts and self.starts[-1][0] == s:
            _, start = self.starts.pop()
            self.body[start:] = _merged(self.body[start:])

    def draw_path(self, gc, path, transform, rgbFace=None):
        if self.hidden:
            return
        clip = gc.get_clip_rectangle()
        if clip:
            turned = clip.transformed(self.flip)
            clip = Bbox([turned.min, turned.max])
        path, transform = path, transform + self.flip
        if gc.get_hatch():
            self._hatch(gc, path.transformed(transform).get_extents(), clip)
            return
        paint = self._paint(gc, rgbFace)
        if clip and rgbFace is not None and not _inside(path, transform, clip):
            path, transform = path.transformed(transform).clip_to_bbox(clip), None
        bounds = clip.padded(-1).extents if clip and rgbFace is None else None  # it adds a pixel
        if "fill" not in paint and "stroke" not in paint:
            return
        paint["shape-rendering"] = None if gc.get_antialiased() else "crispEdges"
        line = rgbFace is None and path.should_simplify
        self._add("path", paint, _d(path, transform, clip=bounds, simplify=line))

    def draw_markers(self, gc, marker_path, marker_trans, path, trans, rgbFace=None):
        places = (trans + self.flip).transform(path.vertices)
        shape = marker_path.transformed(marker_trans + Affine2D().scale(1, -1))
        if marker_path is Path.unit_circle():
            radius = shape.get_extents().width / 2
            found = [_circle(x, y, radius) for x, y in places if np.isfinite(x + y)]
        else:
            found = [_d(shape, Affine2D().translate(*xy)) for xy in places if np.isfinite(sum(xy))]
        self._add("path", self._paint(gc, rgbFace), "".join(found))

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        width = self.get_text_width_height_descent(s, prop, False)[0]
        anchor = {"center": "middle", "right": "end"}.get(mtext.get_ha() if mtext else "left")
        if angle:
            anchor = None
        x += {"middle": width / 2, "end": width}.get(anchor, 0)
        paint = {"fill": _short(to_hex(gc.get_rgb())), "text-anchor": anchor}
        paint["font-style"] = prop.get_style() if prop.get_style() != "normal" else None
        paint["font-weight"] = "bold" if prop.get_weight() in ("bold", 700) else None
        if prop.get_size_in_points() != SIZE:
            paint["font-size"] = _n(self.points_to_pixels(prop.get_size_in_points()))
        if mtext is not None and mtext.get_bbox_patch() is not None:
            paint |= {"stroke": "#fff", "stroke-width": "3", "paint-order": "stroke"}
        turn = f' transform="rotate({-angle:g} {_n(x)} {_n(y)})"' if angle else ""
        text = escape(spoken(s), quote=False)
        self._add("text", paint, f'<text x="{_n(x)}" y="{_n(y)}"{turn}>{text}</text>')

    def _paint(self, gc, face):
        """Fill and stroke as attributes."""
        alpha = gc.get_alpha() if gc.get_forced_alpha() else None
        paint = {}
        if face is not None:
            opacity = alpha if alpha is not None else (face[3] if len(face) > 3 else 1)
            paint = {"fill": _short(to_hex(face[:3])), "fill-opacity": _part(opacity)}
        width = self.points_to_pixels(gc.get_linewidth())
        if width:
            rgba = gc.get_rgb()
            paint |= {"stroke": _short(to_hex(rgba[:3])), "stroke-width": _n(width, 100)}
            paint["stroke-opacity"] = _part(rgba[3] if alpha is None else alpha)
            cap = {"round": "round", "projecting": "square"}.get(str(gc.get_capstyle()))
            paint["stroke-linecap"] = cap
            offset, dashes = gc.get_dashes()
            if dashes is not None:
                paint["stroke-dasharray"] = " ".join(_n(self.points_to_pixels(d)) for d in dashes)
        return paint

    def _hatch(self, gc, box, clip):
        """Slanted lines over a rectangle."""
        x0, y0, x1, y1 = (Bbox.intersection(box, clip) if clip else box).extents
        parts = []
        for c in np.arange(x0 + y0 + HATCH_STEP, x1 + y1, HATCH_STEP):  # where x + y = c
            left, right = max(x0, c - y1), min(x1, c - y0)
            parts.append(_d(Path([(left, c - left), (right, c - right)]), None))
        color = _short(to_hex(gc.get_hatch_color()))
        self._add("path", {"stroke": color, "stroke-width": "1"}, "".join(parts))

    def _add(self, tag, paint, content):
        if content and not self.hidden:
            kept = tuple((name, value) for name, value in paint.items() if value is not None)
            self.body.append((tag, kept, content))


@cache
def _agg():
    return RendererAgg(1, 1, DPI)


def _merged(parts):
    """Parts of the same kind and paint as one, where the first of them stood; texts last."""
    found = {}
    for tag, paint, content in parts:
        found.setdefault((tag, paint), []).append(content)
    order = sorted(found.items(), key=lambda item: item[0][0] == "text")
    return [(tag, paint, "".join(contents)) for (tag, paint), contents in order]


def _element(tag, paint, content):
    attributes = "".join(f' {name}="{value}"' for name, value in paint)
    if tag == "path":
        return f'<path{attributes} d="{content}"/>'
    return (
        f"<text{attributes}{content[5:]}"
        if content.count("<text") == 1
        else f"<g{attributes}>{content}</g>"
    )


def _inside(path, transform, clip):
    box = path.transformed(transform).get_extents()
    return (box.min >= clip.min - 0.5).all() and (box.max <= clip.max + 0.5).all()


def _d(path, transform, clip=None, simplify=False):
    """The path's data in tenths of a pixel, each point relative to the one before."""
    clean = path.cleaned(transform, remove_nans=True, clip=clip, simplify=simplify, curves=True)
    points = np.rint(10 * clean.vertices).astype(int).tolist()
    codes, found, (x, y), last, place = clean.codes.tolist(), [], (0, 0), "", 0
    while (code := codes[place]) != Path.STOP:
        if code == Path.CLOSEPOLY:
            found.append("z")
            last, place = "z", place + 1
            continue
        letter, count = LETTER[code], COUNT.get(code, 1)
        part = points[place : place + count]
        place += count
        steps = part[0] if letter == "M" else [n for a, b in part for n in (a - x, b - y)]
        if letter == "l" and 0 in steps:
            letter = "h" if steps[0] else "v"
            steps = [n for n in steps if n]
        if steps:
            text = "".join(t if t[0] == "-" else f" {t}" for t in map(_tenths, steps))
            found.append(text if letter == last != "M" else letter + text.lstrip())
            (x, y), last = part[-1], letter
    return "".join(found) if len(found) > 1 else ""


@cache
def _tenths(count):
    return _n(count / 10)


def _circle(x, y, radius):
    r, wide = _n(radius), _n(2 * radius)
    return f"M{_n(x - radius)} {_n(y)}a{r} {r} 0 1 0 {wide} 0a{r} {r} 0 1 0-{wide} 0z"


def _n(value, parts=10):
    """A number with one decimal (or of so many parts), as short as it goes."""
    text = f"{round(float(value) * parts) / parts:g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _part(opacity):
    return None if opacity > 0.995 else _n(opacity, 1000)


def _short(color):
    """#ffffff as #fff where nothing is lost."""
    pairs = re.fullmatch(r"#(.)\1(.)\2(.)\3", color)
    return f"#{''.join(pairs.groups())}" if pairs else color
