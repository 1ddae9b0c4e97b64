"""The tensors of a saved model: which there are, in which types, and the way in and out of a
model."""

from dataclasses import replace

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..model import Transformer
from ..quant import quantize_structure

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}


def _build(cfg, scheme):
    model = Transformer(cfg)
    return model if scheme is None else quantize_structure(model, scheme)


class Undrawn(TorchFunctionMode):
    """Draws no numbers, which takes seconds: a file's take their place, and meta has no room."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _layout(cfg, scheme) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Name -> tensor on meta of all that such a model has, and name -> the one it is stored
    under. Positions store nothing."""
    with torch.device("meta"), Undrawn():
        built = _build(replace(cfg, position="none"), scheme)
        wanted = built.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name in sorted(wanted):
        first.setdefault(id(wanted[name]), name)
    return wanted, {name: first[id(tensor)] for name, tensor in wanted.items()}


def stored(model, scheme):
    """The tensors to write, contiguous and each its own, and the name of the type that the model
    computes in."""
    own, (wanted, names) = model.state_dict(), _layout(model.cfg, scheme)
    if odd := sorted(own.keys() ^ wanted.keys()):
        raise ValueError(
            f"{odd[0]} is not as the scheme stores it: "
            "convert() a trained model, save one before accelerate()"
        )
    types = {own[name].dtype for name in own if isinstance(wanted[name], torch.nn.Parameter)}
    if len(types) > 1 or not types <= set(DTYPES.values()):
        raise ValueError(
            f"the model mixes or has types {', '.join(sorted(map(str, types)))}: "
            f"convert it to one of {', '.join(DTYPES)}"
        )
    for name, kept in names.items():
        if own[name].shape != wanted[name].shape:
            raise ValueError(
                f"{name} is {tuple(own[name].shape)} and the configuration says "
                f"{tuple(wanted[name].shape)}: save the model with the configuration it was "
                "built by"
            )
        if not torch.isfinite(own[name]).all():
            raise ValueError(f"{name} is not finite: train again, or load the last good checkpoint")
        if kept != name and not torch.equal(own[name], own[kept]):
            raise ValueError(f"{name} is not {kept}, to which the configuration ties it: tie them")
    tensors = {name: own[name].detach().cpu().clone().contiguous() for name in set(names.values())}
    return tensors, next(n for n, t in DTYPES.items() if t in types)


def compare(path, file, cfg, scheme, dtype) -> dict[str, str]:
    """Name of every tensor of the model -> the one it is stored under; ValueError for the first
    that is not in the file, or not in the model, or of another shape or type."""
    stored = set(file.keys())
    if cfg.n_layers > len(stored):  # before so many are built
        raise ValueError(
            f"{path} is truncated or of another model ({len(stored)} tensors for {cfg.n_layers} "
            "blocks): save or train it again"
        )
    wanted, names = _layout(cfg, scheme)
    known = set(names.values())
    for word, odd in (("Missing", known - stored), ("Unexpected", stored - known)):
        if odd:
            raise ValueError(
                f"{path} is truncated or of another model ({word} key {min(odd)}): "
                "save or train it again"
            )
    for name in sorted(stored):
        own, found = wanted[name], file.get_tensor(name)
        kind = dtype if isinstance(own, torch.nn.Parameter) else own.dtype
        if found.shape != own.shape or found.dtype != kind:
            shown = [
                f"{tuple(shape)} {str(t).removeprefix('torch.')}"
                for shape, t in ((found.shape, found.dtype), (own.shape, kind))
            ]
            raise ValueError(
                f"{path} does not fit config.json: {name} is {shown[0]} in the file and "
                f"{shown[1]} in the model"
            )
    return names


def read(names, file, cfg, scheme, dtype):
    """A model of this type with the file's tensors; `names` as `compare` gives them."""
    with Undrawn():
        model = _build(cfg, scheme).to(dtype)
    model.load_state_dict({name: file.get_tensor(kept) for name, kept in names.items()})
    return model
