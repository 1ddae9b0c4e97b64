"""What caches of every kind must give, recomputed without one: query by query, from the definition,
slowly.

Nothing here is shared with `cache`: windows rotate complex numbers for each pair, and codes are
plain rounded numbers."""

from copy import deepcopy

import torch

from ..model import frequencies

EXACT = ("static", "dynamic", "paged")  # kinds that give what a forward without a cache gives


def in_float64(model):
    """A float64 copy whose rotary table is of float64 too: `.double()` alone keeps the table's
    rounding to float32.

    Without it, logits that depend on differences of positions only (a window's) agree to 1e-7 and
    not to 1e-10."""
    model = deepcopy(model).double()
    if model.cfg.position == "rope":
        angle = torch.arange(model.cfg.context)[:, None] * frequencies(model.cfg)
        model.table = torch.cat((angle.cos(), angle.sin()), dim=-1).to(model.table)
    return model


def all_logits(model, ids: torch.Tensor) -> torch.Tensor:
    """Logits after every token, without a cache: (B, T) -> (B, T, V); of any model with `hidden`
    and `head`."""
    return model.head(model.hidden(ids))


@torch.no_grad()
def oracle_logits(model, ids: torch.Tensor, kind: str = "static", **options) -> torch.Tensor:
    """Logits that a cache of `kind` with these options must give for any split of ids: (B, T) ->
    (B, T, V).

    The options are the cache's; of them `rollback`, and all of the exact and the paged kinds',
    change nothing. ValueError for an unknown kind, or for a window over sinusoidal positions."""
    if kind in EXACT:
        return all_logits(model, ids)
    if kind not in VIEWS:
        raise ValueError(
            f"no oracle for cache kind {kind!r}: choose one of {', '.join((*EXACT, *VIEWS))}"
        )
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"the oracle of {kind!r} looks into a Transformer's blocks, and {type(model).__name__} "
            "has none: give an oracle of your own"
        )
    if kind == "window":
        if model.cfg.position == "sinusoidal":
            raise ValueError("no window over position 'sinusoidal': use position 'rope' or 'none'")
        # longer than the context, perhaps; each pair is rotated by its own distance
        x, rope = model.embedding(ids), None
    else:
        x, rope = model.embed(ids, torch.arange(ids.shape[1], device=ids.device), ids.shape[1])
    for block in model.blocks:
        q, k, v = block.attention.project(block.attention_norm(x), rope)
        y = attention(q, VIEWS[kind](model.cfg, k, v, **options), block.attention.smear)
        x = x + block.attention.out(y.transpose(1, 2).flatten(2))
        x = x + block.ffn(block.ffn_norm(x))
    return model.head(model.norm(x))


def attention(q, view, smear):
    """softmax(q Kᵀ / √D) V with K and V of each query's own, K as `smear` leaves it: q (B, H, T,
    D), view(i) two (B, Hkv, n, D) -> (B, H, T, D)."""
    rows = []
    for i in range(q.shape[2]):
        k, v = view(i)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (smear(k), v))
        scores = (q[:, :, i, None] * k).sum(-1) / q.shape[3] ** 0.5  # (B, H, n)
        rows.append((scores.softmax(-1)[..., None] * v).sum(2))
    return torch.stack(rows, dim=2)


def window_view(cfg, k, v, window=None, sinks=4, rollback=0):
    """Query i sees the first `sinks` tokens and the last `window`, at positions counted in what it
    sees."""
    window = cfg.context - sinks if window is None else window
    if cfg.position == "rope":
        z = torch.complex(*k.chunk(2, dim=-1))  # (B, Hkv, T, D/2)
        back = -torch.arange(k.shape[2], dtype=torch.float64)[:, None] * frequencies(cfg)
        turns = torch.polar(torch.ones_like(back), back).to(z)  # by 0, 1, 2, … positions back

    def view(i):
        seen = torch.tensor(
            [j for j in range(i + 1) if j < sinks or j > i - window], device=k.device
        )
        if cfg.position == "none":
            return k[:, :, seen], v[:, :, seen]
        turned = z[:, :, seen] * turns[: len(seen)].flip(0)  # the query is the last of what it sees
        return torch.cat((turned.real, turned.imag), dim=-1), v[:, :, seen]

    return view


def int8_view(cfg, k, v, **_):
    """Each token and head rounded to 127 steps of a float16 scale on either side of zero."""
    k, v = (rounded(x, x.abs().amax(-1, keepdim=True) / 127, -127, 127) for x in (k, v))
    return lambda i: (k[:, :, : i + 1], v[:, :, : i + 1])


def token_view(bits):
    def make(cfg, k, v, **_):
        """Each token and head rounded between its own least and greatest number."""
        k, v = (rounded_between(x, bits, dim=3) for x in (k, v))
        return lambda i: (k[:, :, : i + 1], v[:, :, : i + 1])

    return make


def kivi_view(bits):
    def make(cfg, k, v, residual=32, group=32, rollback=0):
        """Query i sees the last `residual` tokens, itself included, as they are, and the whole
        groups before them rounded."""
        whole = k.shape[2] // group * group
        channels = group if cfg.head_dim % group == 0 else cfg.head_dim
        low_k = rounded_between(k[:, :, :whole].unflatten(2, (-1, group)), bits, dim=3).flatten(
            2, 3
        )
        low_v = rounded_between(v[:, :, :whole].unflatten(3, (-1, channels)), bits, dim=4).flatten(
            3
        )

        def view(i):
            edge = group * (max(0, i + 1 - residual) // group)
            return [
                torch.cat((low[:, :, :edge], x[:, :, edge : i + 1]), dim=2)
                for low, x in ((low_k, k), (low_v, v))
            ]

        return view

    return make


def rounded_between(x, bits, dim):
    """x on 2^bits levels from its least value along `dim`, which is a float16 number, as is their
    distance."""
    low = x.amin(dim, keepdim=True).clamp(-65504, 65504).half().to(x.dtype)
    return (
        rounded(
            x - low, (x - low).amax(dim, keepdim=True).clamp(min=0) / (2**bits - 1), 0, 2**bits - 1
        )
        + low
    )


def rounded(x, step, least, most):
    """x on the multiples least … most of a step in float16, never smaller than that type's
    smallest; no step for no range."""
    step = torch.where(step == 0, 1.0, step.half().to(x.dtype).clamp(min=2.0**-24))
    return (x / step).round().clamp(least, most) * step


VIEWS = {
    "window": window_view,
    "int8": int8_view,
    "int4": kivi_view(4),
    "int2": kivi_view(2),
    "paged-int8": int8_view,
    "paged-int4": token_view(4),
}
