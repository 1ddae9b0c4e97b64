"""Checkpoints of a run: what it knows of itself, and how another process goes on with it.

A checkpoint goes on only under what it was begun with: the same configuration, first weights,
recipe, batches, teacher, code and torch. Anything else is refused by name, so that no old result
passes for a new one."""

import hashlib
import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from ..files import replacing
from ..quant import scheme_to_json
from .finite import non_finite
from .ranks import Alone, mapped
from .recipe import TrainConfig

LIBRARY = Path(__file__).parent.parent
PROBES = 8  # batches that stand for the whole stream
OTHER = "delete it, or give another checkpoint file"


def identity(model, cfg: TrainConfig, batch, teacher=None) -> dict[str, str]:
    """What a checkpoint belongs to, part by part, as SHA-256: see this module."""
    steps = sorted({round(i * (cfg.steps - 1) / (PROBES - 1)) for i in range(PROBES)})
    quantized = any(hasattr(m, "scheme") for m in (model, teacher))
    scheme = scheme_to_json(getattr(model, "scheme", None))
    return {
        "configuration": _text([asdict(model.cfg), scheme]),
        "initial weights": tensors_digest(model.state_dict()),
        "recipe": _text(asdict(cfg)),
        "batches": tensors_digest({str(step): torch.as_tensor(batch(step)) for step in steps}),
        "teacher": "" if teacher is None else _model(teacher),
        "library code": _code(quantized),
        "torch version": str(torch.__version__),  # a class of its own, which pickles as one
    }


def tensors_digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _model(model) -> str:
    scheme = scheme_to_json(getattr(model, "scheme", None))
    return _text([asdict(model.cfg), scheme, tensors_digest(model.state_dict())])


def _text(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _code(quantized: bool) -> str:
    """Of the files that decide what a step does."""
    wings = ["model.py", "train/*.py", *(["affine.py", "quant/*.py"] if quantized else [])]
    digest = hashlib.sha256()
    for path in sorted(path for wing in wings for path in LIBRARY.glob(wing)):
        digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def write(path: Path, model, opt, owner: dict[str, str], rows: list[dict], ranks: Alone) -> None:
    """Write the state of a run in place of the last one; of several processes the first one does.
    OSError, one line, when the disk refuses: the last one is then still there, whole."""
    state = {
        "identity": owner,
        "model": mapped(model.state_dict(), ranks.gathered),
        "optimizer": mapped(opt.state_dict(), ranks.gathered),
        "rows": rows,
    }
    if ranks.rank:
        return
    with replacing(path) as part:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # torch's own writer says no more than that it failed
            raise OSError(str(error)) from error


def read(
    path: Path, model, opt, owner: dict[str, str], ranks: Alone
) -> tuple[list[dict], dict[str, str]]:
    """Load a checkpoint into model and optimizer, on whatever device they are; its rows, and what
    it belongs to. ValueError when it is broken, or another run's."""
    state = _load(path)
    found = state["identity"]
    differ = [part for part in owner if found.get(part) != owner[part]]
    if differ == ["initial weights"] and owner[differ[0]] == tensors_digest(state["model"]):
        differ = []  # the model is where the checkpoint ends: the same run, called again
    if differ:
        raise ValueError(
            f"{path} belongs to another run, with other {' and '.join(differ)}: {OTHER}"
        )
    if name := non_finite(state["model"]):
        raise ValueError(f"{path} holds a {name} that is not finite: {OTHER}")
    kept, laid = model.state_dict(), ranks.scattered
    model.load_state_dict({n: laid(t, kept[n]) for n, t in state["model"].items()})
    moved = [p for group in opt.param_groups for p in group["params"]]
    moments = state["optimizer"]["state"]
    moments = {i: mapped(own, lambda t, p=moved[i]: laid(t, p)) for i, own in moments.items()}
    opt.load_state_dict(state["optimizer"] | {"state": moments})
    return state["rows"], found


def _load(path: Path) -> dict:
    """The contents of a checkpoint, every byte of them checked; nothing in it is executed."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file's name for the checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():
                raise zipfile.BadZipFile(f"{name} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, so train() did not write it: {OTHER}"
        ) from error
    except Exception as error:  # a damaged archive fails in as many ways as it has bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(
            f"{path} is not a whole training checkpoint ({reason}): {OTHER}"
        ) from error
    known = isinstance(state, dict) and state.keys() >= {"identity", "model", "optimizer", "rows"}
    if not known or not isinstance(state["identity"], dict):
        raise ValueError(f"{path} was written by another program or version: {OTHER}")
    return state
