"""The sliding window with attention sinks: constant memory, and text of any length (Xiao et al.
2023, arXiv:2309.17453).

A query sees the first `sinks` tokens and the last `window`, itself included, at positions counted
inside that cache: no distance passes sinks + window - 1, however long the text. Rotations compose,
so only differences of positions count: a forward's T tokens stand at 0 … T-1 and its past at the
negative positions that give the right distances."""

from functools import cached_property
from typing import NamedTuple

import torch

from ..fields import whole
from ..model import frequencies, rotate
from .base import Cache, Pair
from .step import Step


class Plan(NamedTuple):
    """What one forward reads and writes, the same for every layer."""

    kept: torch.Tensor | slice  # which of the new tokens are stored,
    slots: torch.Tensor | slice  # and where
    turn: tuple | None  # (cos, sin) of the S returned keys; None without RoPE
    mask: torch.Tensor | None  # (T, S); None: lower-right causal
    # (cos, sin) that take the new keys' rotation back; None where they have none
    unturn: tuple | None = None
    # slots of the stored tokens that some row sees, in order; None: all, in the ring's order
    old: torch.Tensor | None = None
    # (S,) indices into old and new tokens; None: each once, in order
    copies: torch.Tensor | None = None


class WindowStep(Step):
    @cached_property
    def plan(self) -> Plan:
        return self.cache.plan(self.T)


class WindowLayer(Pair):
    def update(self, k, v):
        """Store (B, Hkv, T, D), keys un-rotated, and return what these rows see, (B, Hkv, S, D),
        rotated relative to them."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        keys, values = self.room(step, k, cache.sinks + cache.ring)
        k = self.exchange(keys, turned(k, step.plan.unturn), step)
        return turned(k, step.plan.turn), self.exchange(values, v, step)

    def exchange(self, store, new, step):
        """Give the new tokens their slots; return the stored tokens that are seen, and the new
        ones."""
        plan, new, seen = step.plan, new.to(store.dtype), None
        if plan.old is not None:  # read before the ring is written
            seen = torch.cat((store[:, :, plan.old], new), dim=2)
        if step.end > store.shape[2]:  # the ring is full: this forward might not come to its end
            step.overwritten.append((store, plan.slots, store[:, :, plan.slots].clone()))
        store[:, :, plan.slots] = new[:, :, plan.kept]
        if seen is None:
            return store[:, :, : step.end]
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
        if cfg.position == "sinusoidal":
            raise ValueError(
                "position 'sinusoidal' is baked into keys and values by the embedding, "
                "and a window must move it: use position 'rope' or 'none'"
            )
        if cfg.smeared_keys:
            raise ValueError(
                "smeared keys mix each key with the one before it, and a window lets that one go: "
                "use another cache kind, or a model with smeared_keys False"
            )
        sinks, rollback = whole("sinks", sinks, 0), whole("rollback", rollback, 0)
        window = max(1, cfg.context - sinks) if window is None else whole("window", window)
        if sinks + window > cfg.context:
            raise ValueError(
                f"{sinks} sinks and a window of {window} pass context {cfg.context}: "
                "lower one of them"
            )
        self.window, self.sinks, self.ring = window, sinks, window + rollback
        self.rollback = rollback
        self.chunk = cfg.context
        self.planned: tuple = (None, 0, None)  # a state, T, and their plan
        self.table = None  # (2·context, D)
        if cfg.position == "rope":
            angle = torch.arange(-cfg.context, cfg.context)[:, None] * frequencies(cfg)
            self.table = torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.device)

    def admit(self, T):
        """ValueError when T is more than `chunk`."""
        if T > self.chunk:
            raise ValueError(
                f"{T} tokens are more than the {self.chunk} that one forward may feed a window: "
                "feed them in chunks"
            )

    def positions(self, T):
        """Positions of the next T tokens inside this forward: (T,)."""
        self.admit(T)
        return torch.arange(T, device=self.device)

    def reach(self, T):
        return T

    def mask(self, T):
        return self.plan(T).mask

    def hold(self, tokens):
        """No token before it is held, sinks apart."""
        return max(self.state.first, tokens - self.ring)

    def truncate(self, pos):
        """Forget everything from `pos` on. ValueError also when a token that the next one sees was
        evicted."""
        first = max(self.sinks, pos + 1 - self.window)
        if first < min(pos, self.state.first):
            raise ValueError(
                f"cannot truncate to {pos}: token {first} has left the window of {self.window}: "
                f"make_cache(..., rollback={self.pos - pos})"
            )
        super().truncate(pos)

    def begin(self, T):
        return WindowStep(self, T)

    def plan(self, T: int) -> Plan:
        """What a forward of T tokens reads and writes; made once for a state."""
        state, tokens, plan = self.planned
        if state is not self.state or tokens != T:
            plan = self.plan_step() if T == 1 else self.plan_chunk(self.pos, self.pos + T)
            self.planned = self.state, T, plan
        return plan

    def plan_step(self):
        """One token: it takes the slot of one that it does not see, and then reads the store as it
        lies."""
        pos, room = self.pos, self.sinks + self.ring
        slots = torch.arange(min(pos + 1, room), device=self.device)
        sink = slots < self.sinks
        tokens = torch.where(sink, slots, pos - (pos - slots) % self.ring)  # the latest of the slot
        far = min(pos, self.sinks + self.window - 1)
        places = torch.where(sink, slots - far, tokens - pos)
        mask = None if self.ring == self.window else (sink | (tokens > pos - self.window))[None]
        own = pos if pos < room else self.sinks + (pos - self.sinks) % self.ring
        return Plan(slice(0, 1), slice(own, own + 1), self.angles(places), mask)

    def plan_chunk(self, pos, end):
        """Several tokens: where they evict, each row reads its own copy of the sinks, as far away
        as the window is long."""
        rows = torch.arange(pos, end, device=self.device)
        sinks = torch.arange(min(self.sinks, end), device=self.device)
        first = max(self.sinks, pos + 1 - self.window)
        recent = torch.arange(first, max(first, end), device=self.device)
        # tokens between the sinks and a row's window: of the first row, of the last, (T,) of each
        here, there = (max(0, i + 1 - self.sinks - self.window) for i in (pos, end - 1))
        evicted = (rows + 1 - self.sinks - self.window).clamp(min=0)
        moves = torch.arange(here, there + 1, device=self.device)  # one copy of the sinks for each
        places = torch.cat(((moves[:, None] + sinks).flatten(), recent)) - pos  # (S,)
        past = torch.cat((sinks[:pos], recent[: max(0, pos - first)]))
        new = max(0, min(self.sinks, end) - pos)  # sinks among these tokens
        kept = torch.cat((rows[:new], rows[max(new, len(rows) - self.ring) :]))
        copies = mask = None
        if len(moves) > 1:
            own = moves[:, None] == evicted[:, None, None]
            own = own & (sinks <= rows[:, None, None])  # (T, copies, sinks)
            near = (recent > rows[:, None] - self.window) & (recent <= rows[:, None])
            mask = torch.cat((own.flatten(1), near), dim=1)
            index = torch.arange(len(sinks) + len(recent), device=self.device)
            copies = torch.cat((index[: len(sinks)].repeat(len(moves)), index[len(sinks) :]))
        turn, unturn = self.angles(places), self.angles(pos - rows)
        return Plan(kept - pos, self.slots(kept), turn, mask, unturn, self.slots(past), copies)

    def slots(self, tokens):
        """Where tokens are stored: sinks first, then a ring."""
        ring = self.sinks + (tokens - self.sinks) % self.ring
        return torch.where(tokens < self.sinks, tokens, ring)

    def angles(self, places):
        """(cos, sin) of rotations by places in (-context, context), each (n, D/2), float64; None
        without RoPE."""
        if self.table is None:
            return None
        if self.table.device != places.device:
            self.table = self.table.to(places.device)
        return self.table[places + self.cfg.context].chunk(2, dim=-1)


def turned(x, angles):
    """x (B, Hkv, n, D) rotated by (cos, sin), in its own dtype."""
    return x if angles is None else rotate(x, *(a.to(x) for a in angles))
