"""A state that changes in one assignment, and a step that is one forward.

A forward is all or nothing. A step is planned from the state and writes only where the state does
not look; its commit puts the next state in place of the last, which is one assignment. An exception
anywhere before (an interrupt, a hook that raises, memory that ends) leaves the state as it was, so
the same forward may simply be repeated."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from .base import Cache, Layer

Tensors = tuple[torch.Tensor, ...]


class State(NamedTuple):
    """All that a cache holds between two forwards; never changed, only replaced."""

    pos: int  # tokens of the text so far
    first: int  # of kinds that let tokens go: no token before it is held (in full precision)
    batch: int
    starts: torch.Tensor | None  # (B,) padding on the left, of kinds that know it
    stores: tuple[Tensors, ...]  # of each layer, the batch first; () until its first update


class Step:
    """One forward of `T` tokens: `positions` and `mask` for the model, `step[i].update` for its
    layers, and what `commit` will put in place of the state it began from.

    What only some models ask for is made when it is asked for, before the step is committed."""

    def __init__(self, cache: "Cache", T: int):
        cache.admit(T)
        self.cache, self.T, self.before = cache, T, cache.state
        self.end = cache.state.pos + T
        self.stores = list(cache.state.stores)
        # (tensor, slots, what was there) where the state still needs what was written over
        self.overwritten: list[tuple[torch.Tensor, Any, torch.Tensor]] = []
        self.open = self.joined = False

    @cached_property
    def positions(self) -> torch.Tensor:
        return self.cache.positions(self.T)

    @cached_property
    def mask(self) -> torch.Tensor | None:
        T, mask = self.T, self.cache.mask(self.T)
        if mask is None and T > 1 and self.end > T:  # lower-right causal: the last sees every key
            ones = torch.ones(T, self.end, dtype=torch.bool, device=self.positions.device)
            return ones.tril(self.end - T)
        return mask

    @cached_property
    def last(self) -> int:
        """Every position is below it."""
        return self.cache.reach(self.T)

    def __getitem__(self, i: int) -> "Layer":
        return self.cache.layers[i]

    def join(self, T: int) -> "Step":
        """This step, for the one forward inside `Cache.run` that does not commit by itself."""
        if self.joined or T != self.T:
            raise RuntimeError(
                f"a forward of {T} tokens inside one of {self.T} that is not over: "
                "run one at a time"
            )
        self.joined = True
        return self

    def commit(self) -> None:
        """The forward has happened: for the cache, and for every forward to come."""
        cache, before, stores = self.cache, self.before, tuple(self.stores)
        cache.state = State(self.end, cache.hold(self.end), before.batch, before.starts, stores)
        cache.current = None

    def undo(self) -> None:
        """It has not: what it wrote over is put back. Doing it twice does no harm."""
        self.open = False
        for tensor, slots, content in reversed(self.overwritten):
            tensor[:, :, slots] = content
