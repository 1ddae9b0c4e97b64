"""The paged cache: sequences of any length in blocks of one pool, gathered for attention
(PagedAttention, Kwon et al. 2023)."""

import torch

from .base import Cache
from .pool import BlockPool, BlockTable


class PagedLayer:
    def __init__(self, cache, index=0):
        self.cache, self.index = cache, index

    def update(self, k, v):
        """Write (B, Hkv, T, D) to each row's own slots and read all of it, (B, Hkv, S, D), S that
        of the longest row.

        What is read is a copy, gathered from the blocks; a single row whose blocks follow one
        another is a view."""
        self.cache.check(k)
        B, Hkv, T, D = k.shape
        pool, (write, read) = self.cache.pool, self.cache.slots(T)  # (B·T,), (B·S,)
        pool.write(self.index, write, torch.stack((k, v)).transpose(2, 3).reshape(2, B * T, Hkv, D))
        return pool.read(self.index, read).view(2, B, -1, Hkv, D).transpose(2, 3).unbind()

    def truncate(self, pos):
        """Nothing to do: the cache cuts its tables, which every layer shares."""


class PagedCache(Cache):
    """Rows of any length, each a `BlockTable`; less than one block a row is reserved in vain.

    `pool` None: a pool of its own, room for `capacity` tokens a row in blocks of `block_size`
    (None: 16). `pos` is the length of the longest row and `truncate` cuts those that are longer.
    `positions` reserves the blocks of the forward to come, and raises PoolExhausted when there are
    too few. How a number is stored is the pool's affair. ValueError when the pool was made for
    another model, block size or, where the kind names them, other bits."""

    layer = PagedLayer
    options = ("block_size", "pool")
    bits: int | None = None  # of a pool of its own; None: full precision

    def __init__(
        self, cfg, batch, capacity, *, dtype=None, device=None, block_size=None, pool=None
    ):
        super().__init__(cfg, batch, capacity, dtype=dtype, device=device)
        self.layers = [PagedLayer(self, i) for i in range(cfg.n_layers)]
        self.private = pool is None
        if self.private:
            pool = BlockPool(
                cfg,
                1,
                16 if block_size is None else block_size,
                bits=self.bits,
                dtype=dtype,
                device=device,
            )
            pool.grow(batch * pool.blocks_for(capacity))
        block_size = pool.block_size if block_size is None else block_size
        asked = (
            cfg.n_layers,
            cfg.kv_heads,
            cfg.head_dim,
            block_size,
            self.bits or pool.bits,
            dtype or pool.dtype,
        )
        found = (
            pool.cfg.n_layers,
            pool.cfg.kv_heads,
            pool.cfg.head_dim,
            pool.block_size,
            pool.bits,
            pool.dtype,
        )
        if asked != found:
            raise ValueError(
                f"a pool of (layers, kv heads, head dim, block size, bits, dtype) {found} does not fit a cache of {asked}"
            )
        self.pool, self.tables = pool, [BlockTable(pool) for _ in range(batch)]
        self._slots = None

    @classmethod
    def over(cls, tables: list[BlockTable]) -> "PagedCache":
        """A batch of sequences that live elsewhere, for as long as they stay together: what it
        writes, they keep."""
        pool = tables[0].pool
        cache = cls(pool.cfg, len(tables), pool.cfg.context, pool=pool)
        cache.tables, cache.pos = list(tables), max(table.length for table in tables)
        return cache

    @property
    def even(self) -> bool:
        """Whether all rows are equally long: then nothing needs a mask, and attention runs as over
        a static cache."""
        return all(table.length == self.pos for table in self.tables)

    def positions(self, T: int) -> torch.Tensor:
        """Positions of the next T tokens, (T,) or, of rows of unequal length, (B, T); their blocks
        are reserved."""
        positions = super().positions(T)
        self._slots = self._reserve(T)
        return positions if self.even else self._next(T)

    def mask(self, T: int) -> torch.Tensor | None:
        """None for rows of equal length, else which gathered keys each query sees: (B, 1, T, S)."""
        if self.even:
            return None
        return (torch.arange(self.pos + T, device=self.pool.device) <= self._next(T)[..., None])[
            :, None
        ]

    def slots(self, T: int):
        """Where the next T tokens go, (B·T,), and where all are, (B·S,) or a slice; past its end a
        row repeats its last slot."""
        if self._slots is None or len(self._slots[0]) != self.batch * T:
            self._slots = self._reserve(T)
        return self._slots

    def _reserve(self, T):
        for table in self.tables:
            table.reserve(T)
        size, device = self.pool.block_size, self.pool.device
        widest, first = max(len(table.blocks) for table in self.tables), self.tables[0].blocks
        if self.batch == 1 and first == list(range(first[0], first[0] + widest)):
            begin = first[0] * size
            end = begin + self.pos + T
            return torch.arange(end - T, end, device=device), slice(begin, end)
        blocks = torch.tensor(
            [table.blocks + [0] * (widest - len(table.blocks)) for table in self.tables],
            device=device,
        )
        room = (blocks[:, :, None] * size + torch.arange(size, device=device)).flatten(
            1
        )  # (B, widest·size)
        if self.even:
            return room[:, self.pos : self.pos + T].flatten(), room[:, : self.pos + T].flatten()
        new = self._next(T)
        token = (
            torch.arange(self.pos + T, device=device).expand(self.batch, -1).minimum(new[:, -1:])
        )  # (B, S)
        return room.gather(1, new).flatten(), room.gather(1, token).flatten()

    def _next(self, T):
        """Positions of the next T tokens in every row: (B, T)."""
        lengths = torch.tensor(
            [[table.length] for table in self.tables], device=self.pool.device
        )  # (B, 1)
        return lengths + torch.arange(T, device=self.pool.device)

    def advance(self, T: int) -> None:
        """Every row grows by T tokens."""
        super().advance(T)
        for table in self.tables:
            table.length += T
        self._slots = None

    def truncate(self, pos: int) -> None:
        """Cut rows longer than `pos` and release their blocks; 0 gives everything back. ValueError
        past the longest row."""
        super().truncate(pos)
        for table in self.tables:
            table.truncate(pos)
        self._slots = None

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, (B',), repeats allowed: they share blocks until one is written. A pool
        of its own grows with them."""
        forks = [self.tables[row].fork() for row in rows.tolist()]
        for table in self.tables:
            table.truncate(0)
        self.tables, self.batch, self._slots = forks, len(forks), None
        self.pos = max(table.length for table in forks)
        if self.private:
            self.pool.grow(self.batch * self.pool.blocks_for(self.capacity))

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks its rows use, a shared one counted once; the whole pool's are
        `pool.nbytes`."""
        return (
            len({block for table in self.tables for block in table.blocks}) * self.pool.block_bytes
        )


class PagedInt8Cache(PagedCache):
    """Pages of int8, the numbers of `Int8Cache`."""

    bits = 8


class PagedInt4Cache(PagedCache):
    """Pages of int4 with a scale and a minimum for each token and head: unlike KIVI's groups, a
    token is whole as it comes."""

    bits = 4
