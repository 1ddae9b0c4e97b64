"""Mixed precision: how much each matrix suffers from each format alone, and the formats that suffer
least in so many bytes.

The search takes losses as adding up, which holds for small ones (a second-order view of the loss:
Dong et al. 2019): whoever uses what it chose measures that. The result, a mapping from layer to
scheme, is what `quantize` takes and what a scheme file holds."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn as nn

from ..files import replacing
from ..model import ModelConfig
from .methods import quantize
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import QuantScheme, as_scheme
from .sizes import computed_bytes, matrices, matrix_bytes

Loss = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Mixed:
    """A scheme for every layer, the bytes of the model's tensors, and the rise in loss that the
    layers' add up to."""

    scheme: dict[str, QuantScheme | None]
    nbytes: int
    predicted_nats: float


def sensitivity(
    model, formats: Iterable[QuantScheme | None], loss: Loss, method: str = "rtn", calibration=None
) -> list[dict]:
    """Each matrix alone in each format: rows {layer, scheme, bytes, nats}; nats is the rise of
    `loss` (model -> nats a token).

    The format None is floating point and costs nothing but bytes. ValueError when a loss is not
    finite, or no format is given."""
    formats, shapes, whole = list(formats), matrices(model.cfg), loss(model)
    if not formats:
        raise ValueError("no formats to compare: give at least one QuantScheme")
    rows = []
    for layer, shape in shapes.items():
        for scheme in formats:
            alone = dict.fromkeys(shapes) | {layer: scheme}
            nats = (
                0.0 if scheme is None else loss(quantize(model, alone, method, calibration)) - whole
            )
            if not math.isfinite(nats):
                raise ValueError(
                    f"{layer} as {scheme}: the loss is not finite: "
                    "check the model and the text it is measured on"
                )
            rows.append(
                {
                    "layer": layer,
                    "scheme": scheme,
                    "bytes": matrix_bytes(*shape, scheme),
                    "nats": nats,
                }
            )
    return rows


def search(cfg: ModelConfig, rows: list[dict], limit: int) -> Mixed:
    """The formats of the rows of `sensitivity`, one a layer, that fit into `limit` bytes of tensors
    with little loss.

    Greedy: change again and again the layer whose loss falls most for each byte that it grows,
    until nothing that helps fits. It starts from the smallest format everywhere, and from each
    format that fits everywhere, lest it end worse than that one; the least sum counts. ValueError
    when not even the smallest formats fit."""
    options = {layer: [row for row in rows if row["layer"] == layer] for layer in matrices(cfg)}
    if empty := [layer for layer, own in options.items() if not own]:
        raise ValueError(
            f"no row tells of {', '.join(empty)}: give the rows that sensitivity made of this model"
        )
    starts = [
        {
            layer: min(own, key=lambda row: (row["bytes"], row["nats"]))
            for layer, own in options.items()
        }
    ]
    over = computed_bytes(cfg, _schemes(starts[0])) - limit
    if over > 0:
        raise ValueError(
            f"{limit} bytes are {over} fewer than the smallest formats take: "
            "raise it, or give smaller ones"
        )
    for scheme in dict.fromkeys(row["scheme"] for row in rows):
        alike = {row["layer"]: row for row in rows if row["scheme"] == scheme}
        if len(alike) == len(options) and computed_bytes(cfg, _schemes(alike)) <= limit:
            starts.append(alike)
    ends = [
        _spend(options, start, limit - computed_bytes(cfg, _schemes(start))) for start in starts
    ]
    chosen = min(ends, key=lambda end: sum(row["nats"] for row in end.values()))
    scheme = {layer: chosen[layer]["scheme"] for layer in options}
    nats = sum(row["nats"] for row in chosen.values())
    return Mixed(scheme, computed_bytes(cfg, scheme), nats)


def _spend(options, chosen, left):
    """`chosen`, layer -> row, after the greedy changes that `left` more bytes allow."""
    while True:
        steps = []
        for layer, own in options.items():
            now = chosen[layer]
            for row in own:
                grows, helps = row["bytes"] - now["bytes"], now["nats"] - row["nats"]
                if 0 < grows <= left and helps > 0:
                    steps.append((helps / grows, row))
        if not steps:
            return chosen
        row = max(steps, key=lambda step: step[0])[1]
        left -= row["bytes"] - chosen[row["layer"]]["bytes"]
        chosen = chosen | {row["layer"]: row}


def _schemes(chosen):
    return {layer: row["scheme"] for layer, row in chosen.items()}


def save_scheme(path: str | Path, scheme: Mapping[str, QuantScheme | None]) -> Path:
    """Write a mapping from layer to scheme as JSON, under a temporary name, then renamed."""
    path, data = Path(path), {"format": 1, **scheme_to_json(as_scheme(scheme))}
    with replacing(path) as part:
        part.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    return path


def load_scheme(path: str | Path, cfg: ModelConfig) -> dict[str, QuantScheme | None]:
    """The mapping that `save_scheme` wrote, for a model of `cfg`.

    ValueError when the file is no scheme file, has a field that no scheme has (the close one is
    named), or was made for another model: the first layer that does not fit is named."""
    path = Path(path)
    try:
        data = json.loads(path.read_text("utf-8"))
        scheme = scheme_from_json({"layers": data["layers"]})
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a scheme file ({error!r}): give one that save_scheme wrote"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    known = matrices(cfg)
    for name in [*scheme, *known]:
        if name not in known:
            raise ValueError(
                f"{path} is for another model: it names {name!r}, and this one has "
                f"{', '.join(known)}"
            )
        if name not in scheme:
            raise ValueError(f"{path} is for another model: it says nothing of {name!r}")
    return {name: scheme[name] for name in known}
