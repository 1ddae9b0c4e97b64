"""Schemes as JSON: what config.json, a checkpoint and a scheme file hold."""

from collections.abc import Mapping
from dataclasses import asdict, fields

from ..fields import near
from .schemes import QuantScheme


def scheme_to_json(scheme: QuantScheme | Mapping[str, QuantScheme | None] | None):
    """What config.json and a scheme file hold: the fields of one scheme, {"layers": {name: fields
    or null}}, or null."""
    if isinstance(scheme, Mapping):
        return {"layers": {name: scheme_to_json(own) for name, own in scheme.items()}}
    return scheme and asdict(scheme)


def scheme_from_json(data):
    """The inverse of `scheme_to_json`; ValueError naming a field that no scheme has, or the layer
    with an impossible one."""
    if data is None:
        return None
    layers = data.get("layers", {}) if isinstance(data, dict) else None
    if not isinstance(layers, dict):
        raise ValueError(
            f"{data!r} is no scheme: give an object of its fields, or null for floating point"
        )
    if layers:
        return {name: _layer_from_json(name, own) for name, own in layers.items()}
    known = [field.name for field in fields(QuantScheme)]
    for name in data:
        if name not in known:
            raise ValueError(
                f"a scheme has no field {name!r}{near(name, known)}: choose from {', '.join(known)}"
            )
    return QuantScheme(**data)


def _layer_from_json(name, data):
    try:
        return scheme_from_json(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
