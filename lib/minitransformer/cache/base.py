"""What every cache shares: one cursor, one layer object a block, and the questions the model
asks."""

import torch

from ..model import ModelConfig


class Cache:
    """A list of layers with one cursor `pos`; the model asks `positions` and `mask`, updates
    layers, and advances.

    A subclass names its `layer` class, which offers `update(k, v)`, `truncate(pos)`, `select(rows)`
    and `nbytes`."""

    layer: type
    options: tuple[str, ...] = ()  # what make_cache may pass on to this kind
    chunk: int | None = (
        # the most tokens of one forward, in a kind that outlives the context; None: what fits the
        # capacity
        None
    )

    def __init__(self, cfg: ModelConfig, batch: int, capacity: int, *, dtype=None, device=None):
        self.cfg, self.batch, self.capacity = cfg, batch, capacity
        self.dtype, self.device = dtype, device
        self.pos = 0
        self.layers = [self.layer(self) for _ in range(cfg.n_layers)]

    def __getitem__(self, i):
        return self.layers[i]

    def positions(self, T: int) -> torch.Tensor:
        """Absolute positions of the next T tokens: (T,). ValueError when they pass the capacity."""
        if self.pos + T > self.capacity:
            raise ValueError(
                f"{self.pos + T} tokens do not fit a cache of capacity {self.capacity}: make_cache(..., capacity={self.pos + T})"
            )
        return torch.arange(self.pos, self.pos + T, device=self.device)

    def mask(self, T: int) -> torch.Tensor | None:
        """None: the model's own lower-right causal mask is right."""
        return None

    def advance(self, T: int) -> None:
        """Move the cursor; the model calls it once a forward, after the last layer."""
        self.pos += T

    def truncate(self, pos: int) -> None:
        """Forget everything from `pos` on. ValueError when `pos` is not behind the cursor."""
        if not 0 <= pos <= self.pos:
            raise ValueError(f"cannot truncate to {pos}: the cache holds {self.pos} tokens")
        for layer in self.layers:
            layer.truncate(pos)
        self.pos = pos

    def select(self, rows: torch.Tensor) -> None:
        """Keep these batch rows, in this order, repeats allowed: (B',) integer indices."""
        for layer in self.layers:
            layer.select(rows)
        self.batch = len(rows)

    @property
    def nbytes(self) -> int:
        """Bytes the keys and values occupy, reserved room included."""
        return sum(layer.nbytes for layer in self.layers)

    def check(self, k: torch.Tensor) -> None:
        """ValueError unless k (B, Hkv, T, D) has this cache's batch and heads."""
        expected = (self.batch, self.cfg.kv_heads, self.cfg.head_dim)
        found = (k.shape[0], k.shape[1], k.shape[3])
        if found != expected:
            raise ValueError(
                f"keys of (batch, kv heads, head dim) {found} do not fit a cache of {expected}: "
                "make the cache with this model's config and batch"
            )
