"""The sliding window with attention sinks: constant memory, and text of any length (Xiao et al.
2023, arXiv:2309.17453).

A query sees the first `sinks` tokens and the last `window`, itself included, at positions counted
inside that cache: no distance passes sinks + window - 1, however long the text. Rotations compose,
so only differences of positions count: a forward's T tokens stand at 0 … T-1 and its past at the
negative positions that give the right distances."""

from typing import NamedTuple

import torch

from ..model import rotate
from .base import Cache
from .static import StaticLayer


class Plan(NamedTuple):
    """What one forward reads and writes, the same for every layer."""

    kept: torch.Tensor  # which of the new tokens are stored,
    slots: torch.Tensor  # and where
    turn: tuple | None  # (cos, sin) of the S returned keys; None without RoPE
    mask: torch.Tensor | None  # (T, S); None: lower-right causal
    unturn: tuple | None = (
        None  # (cos, sin) that take the new keys' rotation back; None where they have none
    )
    old: torch.Tensor | None = (
        # slots of the stored tokens that some row sees, in order; None: all, in the ring's order
        None
    )
    copies: torch.Tensor | None = (
        None  # (S,) indices into old and new tokens; None: each once, in order
    )


class WindowLayer(StaticLayer):
    def update(self, k, v):
        """Store (B, Hkv, T, D), keys un-rotated, and return what these rows see, (B, Hkv, S, D),
        rotated relative to them."""
        self.cache.check(k)
        if self.k is None:
            B, Hkv, _, D = k.shape
            like = {"dtype": self.cache.dtype or k.dtype, "device": self.cache.device or k.device}
            self.k = torch.zeros(B, Hkv, self.cache.sinks + self.cache.ring, D, **like)
            self.v = torch.zeros_like(self.k)
        plan = self.cache.plan(k.shape[2])
        k = self.exchange(self.k, turned(k, plan.unturn), plan)
        return turned(k, plan.turn), self.exchange(self.v, v, plan)

    def exchange(self, store, new, plan):
        """Give the new tokens their slots; return the stored tokens that are seen, and the new
        ones."""
        new = new.to(store.dtype)
        if plan.old is None:
            store[:, :, plan.slots] = new
            return store[:, :, : self.cache.pos + 1]
        seen = torch.cat((store[:, :, plan.old], new), dim=2)  # read before the ring is written
        store[:, :, plan.slots] = new[:, :, plan.kept]
        return seen if plan.copies is None else seen[:, :, plan.copies]


class WindowCache(Cache):
    """The last `window` tokens (None: as many as the context has beside the sinks) and the first
    `sinks`; no capacity limits it.

    Memory is 2·L·B·Hkv·(sinks + window + rollback)·D elements; `rollback` tokens may be truncated
    after others were evicted. A chunk gives the logits of its tokens fed one by one: a row that
    evicts sees its own copy of the sinks, rotated for it."""

    layer = WindowLayer
    options = ("window", "sinks", "rollback")

    def __init__(self, cfg, batch, capacity, *, window=None, sinks=4, rollback=0, **where):
        super().__init__(cfg, batch, capacity, **where)
        window = max(1, cfg.context - sinks) if window is None else window
        if cfg.position == "sinusoidal":
            raise ValueError(
                "position 'sinusoidal' is baked into keys and values by the embedding, and a window must move it: "
                "use position 'rope' or 'none'"
            )
        for name, value, least in (
            ("window", window, 1),
            ("sinks", sinks, 0),
            ("rollback", rollback, 0),
        ):
            if value < least:
                raise ValueError(f"{name} {value} is too few: give at least {least}")
        if sinks + window > cfg.context:
            raise ValueError(
                f"{sinks} sinks and a window of {window} pass context {cfg.context}: lower one of them"
            )
        self.window, self.sinks, self.ring = window, sinks, window + rollback
        self.chunk = cfg.context
        self.oldest = 0  # no token before it is held, sinks apart
        self.planned = None  # (pos, T) and its plan
        self.table = None
        if cfg.position == "rope":
            pairs = (
                torch.arange(0, cfg.head_dim, 2, dtype=torch.float64, device=self.device)
                / cfg.head_dim
            )
            angle = (
                torch.arange(-cfg.context, cfg.context, device=self.device)[:, None]
                * cfg.rope_theta**-pairs
            )
            self.table = torch.cat((angle.cos(), angle.sin()), dim=-1)  # (2·context, D)

    def positions(self, T):
        """Positions of the next T tokens inside this forward: (T,). ValueError when it is longer
        than `chunk`."""
        if T > self.chunk:
            raise ValueError(
                f"{T} tokens are more than the {self.chunk} that one forward may feed a window: feed them in chunks"
            )
        return torch.arange(T, device=self.device)

    def mask(self, T):
        return self.plan(T).mask

    def advance(self, T):
        super().advance(T)
        self.oldest = max(self.oldest, self.pos - self.ring)

    def truncate(self, pos):
        """Forget everything from `pos` on. ValueError also when a token that the next one sees was
        evicted."""
        first = max(self.sinks, pos + 1 - self.window)
        if first < min(pos, self.oldest):
            raise ValueError(
                f"cannot truncate to {pos}: token {first} has left the window of {self.window}: "
                f"make_cache(..., rollback={self.pos - pos})"
            )
        super().truncate(pos)
        self.oldest = min(self.oldest, pos)

    def plan(self, T: int) -> Plan:
        """The plan of a forward of T tokens, made once for all layers."""
        if self.planned is None or self.planned[0] != (self.pos, T):
            self.planned = (
                (self.pos, T),
                self.plan_step() if T == 1 else self.plan_chunk(self.pos, self.pos + T),
            )
        return self.planned[1]

    def plan_step(self):
        """One token: it takes the slot of one that it does not see, and then reads the store as it
        lies."""
        pos, slots = (
            self.pos,
            torch.arange(min(self.pos + 1, self.sinks + self.ring), device=self.device),
        )
        tokens = torch.where(
            slots < self.sinks, slots, pos - (pos - slots) % self.ring
        )  # the latest that has the slot
        places = torch.where(
            slots < self.sinks, slots - min(pos, self.sinks + self.window - 1), tokens - pos
        )
        mask = (
            None
            if self.ring == self.window
            else ((slots < self.sinks) | (tokens > pos - self.window))[None]
        )
        kept = torch.zeros(1, dtype=torch.long, device=self.device)
        return Plan(kept, self.slots(kept + pos), self.angles(places), mask)

    def plan_chunk(self, pos, end):
        """Several tokens: where they evict, each row reads its own copy of the sinks, as far away
        as the window is long."""
        rows = torch.arange(pos, end, device=self.device)
        sinks = torch.arange(min(self.sinks, end), device=self.device)
        first = max(self.sinks, pos + 1 - self.window)
        recent = torch.arange(first, max(first, end), device=self.device)
        evicted = (rows + 1 - self.sinks - self.window).clamp(
            min=0
        )  # (T,) tokens between the sinks and each row's window
        moves = torch.arange(
            int(evicted[0]), int(evicted[-1]) + 1, device=self.device
        )  # one copy of the sinks for each
        places = torch.cat(((moves[:, None] + sinks).flatten(), recent)) - pos  # (S,)
        tokens, kept = (
            torch.cat((sinks, recent)),
            rows[(rows < self.sinks) | (rows >= end - self.ring)],
        )
        copies = mask = None
        if len(moves) > 1:
            own = (moves[:, None] == evicted[:, None, None]) & (
                sinks <= rows[:, None, None]
            )  # (T, copies, sinks)
            near = (recent > rows[:, None] - self.window) & (recent <= rows[:, None])
            mask = torch.cat((own.flatten(1), near), dim=1)
            index = torch.arange(len(tokens), device=self.device)
            copies = torch.cat((index[: len(sinks)].repeat(len(moves)), index[len(sinks) :]))
        turn, unturn, old = (
            self.angles(places),
            self.angles(pos - rows),
            self.slots(tokens[tokens < pos]),
        )
        return Plan(kept - pos, self.slots(kept), turn, mask, unturn, old, copies)

    def slots(self, tokens):
        """Where tokens are stored: sinks first, then a ring."""
        return torch.where(
            tokens < self.sinks, tokens, self.sinks + (tokens - self.sinks) % self.ring
        )

    def angles(self, places):
        """(cos, sin) of rotations by places in (-context, context), each (n, D/2), float64; None
        without RoPE."""
        return (
            None if self.table is None else self.table[places + self.cfg.context].chunk(2, dim=-1)
        )


def turned(x, angles):
    """x (B, Hkv, n, D) rotated by (cos, sin), in its own dtype."""
    return x if angles is None else rotate(x, *(a.to(x) for a in angles))
