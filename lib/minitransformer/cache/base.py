"""What every cache shares: layers, one cursor, and the rule that a forward happens or does not (see
`step`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from ..model import ModelConfig
from .step import State, Step, Tensors

# What of a configuration decides how keys and values are stored and read.
SHAPE = ("n_layers", "kv_heads", "head_dim", "position")
SHAPE += ("smeared_keys", "rope_theta", "rope_scaling")


class Layer(ABC):
    """Keys and values of one block of the model; a kind says how `update` keeps and gives them."""

    def __init__(self, cache: "Cache", index: int):
        self.cache, self.index = cache, index

    @property
    def store(self) -> Tensors:
        return self.cache.state.stores[self.index]

    @abstractmethod
    def update(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the step's keys and values (B, Hkv, T, D), keys rotated, and return all that its
        rows see, (B, Hkv, S, D)."""

    def truncate(self, pos: int) -> Tensors:
        """What is left of the store: all, where what lies behind the cursor is never read."""
        return self.store

    def select(self, rows: torch.Tensor) -> Tensors:
        return tuple(x[rows] for x in self.store)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.store)


class Pair(Layer):
    """A layer that stores two tensors, keys and values, (B, Hkv, S, D)."""

    def room(self, step: Step, like: torch.Tensor, slots: int) -> Tensors:
        """The store, (B, Hkv, slots, D) twice, made by the first step in its type or `like`'s."""
        cache, store = self.cache, step.stores[self.index]
        if not store:
            shape = (like.shape[0], like.shape[1], slots, like.shape[3])
            where = {"dtype": cache.dtype or like.dtype, "device": cache.device or like.device}
            store = (torch.zeros(shape, **where), torch.zeros(shape, **where))
            step.stores[self.index] = store
        return store


class Cache:
    """Keys and values of a text: a list of layers and one cursor, `pos`.

    The model calls `run`. By hand: `positions(T)` and `mask(T)`, which only answer, `update` of
    every layer, and `advance(T)`, before which nothing has changed."""

    layer: type[Layer]
    options: tuple[str, ...] = ()  # what make_cache may pass on to this kind
    # the most tokens of one forward, in a kind that outlives the context; None: its capacity
    chunk: int | None = None
    # the most tokens that `truncate` takes back at any time; None: any number
    rollback: int | None = None

    def __init__(self, cfg: ModelConfig, batch: int, capacity: int, *, dtype=None, device=None):
        self.cfg, self.capacity = cfg, capacity
        self.dtype, self.device = dtype, device
        self.state = State(0, 0, batch, None, ((),) * cfg.n_layers)
        self.current: Step | None = None  # the step that is planned and not committed
        self.layers = [self.layer(self, i) for i in range(cfg.n_layers)]

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    @property
    def pos(self) -> int:
        """The cursor: tokens of the text so far."""
        return self.state.pos

    @pos.setter
    def pos(self, pos: int) -> None:
        self.state = self.state._replace(pos=pos)

    @property
    def batch(self) -> int:
        return self.state.batch

    def admit(self, T: int) -> None:
        """ValueError when T tokens more do not fit."""
        if (tokens := self.state.pos + T) > self.capacity:
            raise ValueError(
                f"{tokens} tokens do not fit a cache of capacity {self.capacity}: "
                f"make_cache(..., capacity={tokens})"
            )

    def positions(self, T: int) -> torch.Tensor:
        """Absolute positions of the next T tokens: (T,). ValueError when they do not fit."""
        self.admit(T)
        pos = self.state.pos
        return torch.arange(pos, pos + T, device=self.device)

    def reach(self, T: int) -> int:
        """Every position of the next T tokens is below it."""
        return self.state.pos + T

    def mask(self, T: int) -> torch.Tensor | None:
        """None: lower-right causal is right, the last of T queries sees every key."""
        return None

    def hold(self, tokens: int) -> int:
        """The first token still held after `tokens` tokens: the next `State.first`."""
        return 0

    def begin(self, T: int) -> Any:
        """The step of the next T tokens, from the state alone; nothing is changed yet."""
        return Step(self, T)

    def step(self, T: int) -> Any:
        """The step of T tokens that is under way, or the one that begins here."""
        step = self.current
        if step is None or step.T != T or step.before is not self.state:
            self.settle()
            step = self.current = self.begin(T)
        return step

    def run(self, T: int, body: Callable[[Any], torch.Tensor], device=None) -> torch.Tensor:
        """body(step) of a forward of T tokens: committed when it returns, undone when it raises.

        Inside another `run`, which then commits for both, so that a head may fail as well."""
        step = self.current
        if step is not None and step.open and step.before is self.state:
            return body(step.join(T))
        self.device = self.device or device
        try:
            self.settle()
            step = self.current = self.begin(T)
            step.open = True
            result = body(step)
            step.commit()
            return result
        except BaseException:
            self.settle()
            raise

    def advance(self, T: int) -> None:
        """The step of T tokens has happened. Inside `run` that waits for its end."""
        step = self.step(T)
        if step.open:
            step.join(T)
        else:
            step.commit()

    def settle(self) -> None:
        """Undo a step that was begun and came to no end, if there is one."""
        step = self.current
        if step is not None and step.before is self.state:
            step.undo()
        self.current = None

    def truncate(self, pos: int) -> None:
        """Forget everything from `pos` on. ValueError when `pos` is not behind the cursor."""
        if not 0 <= pos <= self.state.pos or pos % 1:
            raise ValueError(f"cannot truncate to {pos}: the cache holds {self.state.pos} tokens")
        self.settle()
        _, first, batch, starts, _ = self.state
        stores = tuple(layer.truncate(pos) for layer in self.layers)
        self.state = State(pos, min(first, pos), batch, starts, stores)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these batch rows, in this order, repeats allowed: (B',) integer indices."""
        self.settle()
        pos, first, _, starts, _ = self.state
        starts = None if starts is None else starts[rows]
        stores = tuple(layer.select(rows) for layer in self.layers)
        self.state = State(pos, first, len(rows), starts, stores)

    @property
    def nbytes(self) -> int:
        """Bytes the keys and values occupy, reserved room included."""
        return sum(layer.nbytes for layer in self.layers)

    def fits(self, cfg: ModelConfig) -> None:
        """ValueError unless it was made for a model of this shape."""
        if self.cfg is cfg:
            return
        for name in SHAPE:
            if (made := getattr(self.cfg, name)) != (asked := getattr(cfg, name)):
                fault = f"a cache of {name} {made} does not fit a model of {name} {asked}"
                raise ValueError(f"{fault}: make it with this model's config")

    def check(self, k: torch.Tensor) -> None:
        """ValueError unless k (B, Hkv, T, D) has this cache's batch and heads."""
        expected = (self.state.batch, self.cfg.kv_heads, self.cfg.head_dim)
        found = (k.shape[0], k.shape[1], k.shape[3])
        if found != expected:
            raise ValueError(
                f"keys of (batch, kv heads, head dim) {found} do not fit a cache of {expected}: "
                "make the cache with this model's config and batch"
            )
