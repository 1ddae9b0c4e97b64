"""The sliding window with attention sinks: constant memory, and text of any length (Xiao et al. 2023, arXiv:2309.17453).

A query sees the first `sinks` tokens and the last `window`, itself included, at positions counted inside that cache:
no distance passes sinks + window - 1, however long the text. Rotations compose, so only differences of positions
count: a forward's T tokens stand at 0 … T-1 and its past at the negative positions that give the right distances.
"""

from typing import NamedTuple

import torch

from ..model import rotate
from .base import Cache


class Plan(NamedTuple):
    """What one forward reads and writes, the same for every layer."""

    old: torch.Tensor  # slots of the stored tokens that some row sees, in order
    kept: torch.Tensor  # which of the new tokens are stored,
    slots: torch.Tensor  # and where
    copies: torch.Tensor | None  # (S,) indices into old and new tokens; None: each once, in order
    unturn: tuple | None  # (cos, sin) that take the new keys' rotation back; None without RoPE
    turn: tuple | None  # (cos, sin) of the S returned keys
    mask: torch.Tensor | None  # (T, S); None: lower-right causal


class WindowLayer:
    def __init__(self, cache):
        self.cache = cache
        self.k = self.v = None

    def update(self, k, v):
        """Store (B, Hkv, T, D), keys un-rotated, and return what these rows see, (B, Hkv, S, D), rotated relative to them."""
        self.cache.check(k)
        if self.k is None:
            B, Hkv, _, D = k.shape
            like = {"dtype": self.cache.dtype or k.dtype, "device": self.cache.device or k.device}
            self.k = torch.zeros(B, Hkv, self.cache.sinks + self.cache.ring, D, **like)
            self.v = torch.zeros_like(self.k)
        plan = self.cache.plan(k.shape[2])
        k = self.exchange(self.k, turned(k, plan.unturn), plan)
        return turned(k, plan.turn), self.exchange(self.v, v, plan)

    @staticmethod
    def exchange(store, new, plan):
        """Stored tokens that are seen, then the new ones; the new ones take their slots."""
        new = new.to(store.dtype)
        seen = torch.cat((store[:, :, plan.old], new), dim=2)  # read before the ring is written
        store[:, :, plan.slots] = new[:, :, plan.kept]
        return seen if plan.copies is None else seen[:, :, plan.copies]

    def truncate(self, pos):
        """Nothing to do: the cache has made sure that no slot which comes back was written since."""

    def select(self, rows):
        if self.k is not None:
            self.k, self.v = self.k[rows], self.v[rows]

    @property
    def nbytes(self):
        return 0 if self.k is None else self.k.nbytes + self.v.nbytes


class WindowCache(Cache):
    """The last `window` tokens (None: as many as the context has beside the sinks) and the first `sinks`; no capacity limits it.

    Memory is 2·L·B·Hkv·(sinks + window + rollback)·D elements; `rollback` tokens may be truncated after others were evicted.
    A chunk gives the logits of its tokens fed one by one: a row that evicts sees its own copy of the sinks, rotated for it.
    """

    layer = WindowLayer
    options = ("window", "sinks", "rollback")

    def __init__(self, cfg, batch, capacity, *, window=None, sinks=4, rollback=0, **where):
        super().__init__(cfg, batch, capacity, **where)
        window = cfg.context - sinks if window is None else window
        if cfg.position == "sinusoidal":
            raise ValueError("position 'sinusoidal' is added to the embedding, so that no window can move it out of keys and values: "
                             "use position 'rope' or 'none'")
        for name, value, least in (("window", window, 1), ("sinks", sinks, 0), ("rollback", rollback, 0)):
            if value < least:
                raise ValueError(f"{name} {value} is too few: give at least {least}")
        if sinks + window > cfg.context:
            raise ValueError(f"{sinks} sinks and a window of {window} pass context {cfg.context}: lower one of them")
        self.window, self.sinks, self.ring = window, sinks, window + rollback
        self.chunk = cfg.context
        self.oldest = 0  # no token before it is held, sinks apart
        self.planned = None  # (pos, T) and its plan

    def positions(self, T):
        """Positions of the next T tokens inside this forward: (T,). ValueError when it is longer than `chunk`."""
        if T > self.chunk:
            raise ValueError(f"{T} tokens are more than the {self.chunk} that one forward may feed a window: feed them in chunks")
        return torch.arange(T, device=self.device)

    def mask(self, T):
        return self.plan(T).mask

    def advance(self, T):
        super().advance(T)
        self.oldest = max(self.oldest, self.pos - self.ring)

    def truncate(self, pos):
        """Forget everything from `pos` on. ValueError also when a token that the next one sees was evicted."""
        first = max(self.sinks, pos + 1 - self.window)
        if first < min(pos, self.oldest):
            raise ValueError(f"cannot truncate to {pos}: token {first} has left the window of {self.window}: "
                             f"make_cache(..., rollback={self.pos - pos})")
        super().truncate(pos)
        self.oldest = min(self.oldest, pos)

    def plan(self, T: int) -> Plan:
        """The plan of a forward of T tokens, made once for all layers."""
        if self.planned is None or self.planned[0] != (self.pos, T):
            self.planned = (self.pos, T), self.make_plan(self.pos, self.pos + T)
        return self.planned[1]

    def make_plan(self, pos, end):
        rows = torch.arange(pos, end, device=self.device)
        sinks = torch.arange(min(self.sinks, end), device=self.device)
        first = max(self.sinks, pos + 1 - self.window)
        recent = torch.arange(first, max(first, end), device=self.device)
        evicted = (rows + 1 - self.sinks - self.window).clamp(min=0)  # (T,) how far each row has moved from the sinks
        moves = torch.arange(int(evicted[0]), int(evicted[-1]) + 1, device=self.device)  # one copy of the sinks for each
        tokens = torch.cat((sinks.repeat(len(moves)), recent))  # (S,)
        places = torch.cat(((moves[:, None] + sinks).flatten(), recent)) - pos
        old, kept = torch.cat((sinks, recent)), rows[(rows < self.sinks) | (rows >= end - self.ring)]
        copies = mask = None
        if len(moves) > 1:
            own = moves.repeat_interleave(len(sinks)) == evicted[:, None]  # (T, copies)
            near = (recent > rows[:, None] - self.window) & (recent <= rows[:, None])
            mask = torch.cat((own & (tokens[: own.shape[1]] <= rows[:, None]), near), dim=1)
            everything = torch.arange(len(old), device=self.device)
            copies = torch.cat((everything[: len(sinks)].repeat(len(moves)), everything[len(sinks) :]))
        return Plan(self.slots(old[old < pos]), kept - pos, self.slots(kept), copies, self.angles(pos - rows), self.angles(places), mask)

    def slots(self, tokens):
        """Where tokens are stored: sinks first, then a ring."""
        return torch.where(tokens < self.sinks, tokens, self.sinks + (tokens - self.sinks) % self.ring)

    def angles(self, positions):
        """(cos, sin) of rotations by positions of either sign, each (n, D/2), float64; None without RoPE."""
        if self.cfg.position == "none":
            return None
        pairs = torch.arange(0, self.cfg.head_dim, 2, dtype=torch.float64, device=self.device) / self.cfg.head_dim
        angle = positions[:, None] * self.cfg.rope_theta**-pairs
        return angle.cos(), angle.sin()


def turned(x, angles):
    """x (B, Hkv, n, D) rotated by (cos, sin), in its own dtype."""
    return x if angles is None else rotate(x, *(a.to(x) for a in angles))
