"""The paged cache: sequences of any length in blocks of one pool, gathered for attention
(PagedAttention, Kwon et al. 2023)."""

from functools import cached_property

import torch

from .base import Cache, Layer
from .pool import BlockPool
from .step import Step
from .tables import BlockTable, Change, Reservation


class PagedStep(Step):
    """A step with its blocks."""

    def __init__(self, cache, T):
        super().__init__(cache, T)
        pool = cache.pool
        self.room, self.done = Reservation(pool, cache.tables, T), False
        self.store = pool.store, pool.dtype, pool.device

    @cached_property
    def slots(self):
        """Where its tokens go, (B·T,), and those of all tokens, (B·S,) or a slice; past its end a
        row repeats its last."""
        cache, T = self.cache, self.T
        size, device = cache.pool.block_size, self.positions.device
        rows = [blocks for _, blocks, _ in self.room.rows]
        widest, first = max(map(len, rows)), rows[0]
        if len(rows) == 1 and first == list(range(first[0], first[0] + widest)):
            begin = first[0] * size
            end = begin + self.end
            return torch.arange(end - T, end, device=device), slice(begin, end)
        padded = [blocks + [0] * (widest - len(blocks)) for blocks in rows]
        blocks = torch.tensor(padded, device=device)
        slots = torch.arange(size, device=device)
        room = (blocks[:, :, None] * size + slots).flatten(1)  # (B, widest·size)
        if cache.even:
            return room[:, self.end - T : self.end].flatten(), room[:, : self.end].flatten()
        new = self.positions  # (B, T)
        token = torch.arange(self.end, device=device).expand(len(rows), -1)
        token = token.minimum(new[:, -1:])  # (B, S)
        return room.gather(1, new).flatten(), room.gather(1, token).flatten()

    def commit(self):
        """The blocks are the rows' own now, and each has T tokens more."""
        room = self.room
        room.rows = [(table, blocks, length + self.T) for table, blocks, length in room.rows]
        self.done = True
        room.do()
        super().commit()

    def undo(self):
        super().undo()
        if self.done:
            self.room.undo()
        pool = self.cache.pool
        if self.store[0] is None and not pool.used and not pool.known:  # made for these tokens
            pool.store, pool.dtype, pool.device = self.store


class PagedLayer(Layer):
    def update(self, k, v):
        """Write (B, Hkv, T, D) to each row's own slots and read all of it, (B, Hkv, S, D), S that
        of the longest row.

        What is read is a copy, gathered from the blocks; a single row whose blocks follow one
        another is a view."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        if not step.room.prepared:
            step.room.prepare()
        B, Hkv, T, D = k.shape
        new = torch.stack((k, v)).transpose(2, 3).reshape(2, B * T, Hkv, D)
        write, read = step.slots
        cache.pool.write(self.index, write, new)
        seen = cache.pool.read(self.index, read)
        return seen.view(2, B, -1, Hkv, D).transpose(2, 3).unbind()


class PagedCache(Cache):
    """Rows of any length, each a `BlockTable`; less than one block a row is reserved in vain.

    `pool` None: a pool of its own, room for `capacity` tokens a row in blocks of `block_size`
    (None: 16). `pos` is the length of the longest row and `truncate` cuts those that are longer.
    A step writes to free blocks and takes them when it is committed; PoolExhausted when there are
    too few. How a number is stored is the pool's affair. ValueError when the pool was made for
    another model, block size or, where the kind names them, other bits."""

    layer = PagedLayer
    options = ("block_size", "pool")
    bits: int | None = None  # of a pool of its own; None: full precision

    def __init__(
        self, cfg, batch, capacity, *, dtype=None, device=None, block_size=None, pool=None
    ):
        super().__init__(cfg, batch, capacity, dtype=dtype, device=device)
        self.private = pool is None
        if self.private:
            size = 16 if block_size is None else block_size
            pool = BlockPool(cfg, 1, size, bits=self.bits, dtype=dtype, device=device)
            pool.grow(batch * pool.blocks_for(capacity))
        block_size = pool.block_size if block_size is None else block_size
        shapes = [(c.n_layers, c.kv_heads, c.head_dim) for c in (cfg, pool.cfg)]
        asked = (*shapes[0], block_size, self.bits or pool.bits, dtype or pool.dtype)
        found = (*shapes[1], pool.block_size, pool.bits, pool.dtype)
        if asked != found:
            raise ValueError(
                "a pool of (layers, kv heads, head dim, block size, bits, dtype) "
                f"{found} does not fit a cache of {asked}"
            )
        self.pool, self.tables = pool, [BlockTable(pool) for _ in range(batch)]
        self.device = device or pool.device

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
        """Positions of the next T tokens: (T,) or, of rows of unequal length, (B, T)."""
        positions = super().positions(T)
        return positions if self.even else self._next(T)

    def mask(self, T: int) -> torch.Tensor | None:
        """None for rows of equal length, else which gathered keys each query sees: (B, 1, T, S)."""
        if self.even:
            return None
        keys = torch.arange(self.pos + T, device=self.device)
        return (keys <= self._next(T)[..., None])[:, None]

    def _next(self, T):
        """Positions of the next T tokens in every row: (B, T)."""
        lengths = torch.tensor([[table.length] for table in self.tables], device=self.device)
        return lengths + torch.arange(T, device=self.device)

    def begin(self, T: int) -> PagedStep:
        return PagedStep(self, T)

    def truncate(self, pos: int) -> None:
        """Cut rows longer than `pos` and release their blocks; 0 gives everything back. ValueError
        past the longest row."""
        pairs = [(table, min(max(pos, 0), table.length)) for table in self.tables]
        cut = [(table, table.blocks[: self.pool.blocks_for(n)], n) for table, n in pairs]
        self._change(cut, super().truncate, pos)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, (B',), repeats allowed: they share blocks until one is written. A pool
        of its own grows with them."""
        kept = [self.tables[row] for row in rows.tolist()]
        tables = [BlockTable(self.pool) for _ in kept]
        blocks_for = self.pool.blocks_for
        changed = [(table, [], 0) for table in self.tables]
        changed += [
            (new, old.blocks[: blocks_for(old.length)], old.length)
            for new, old in zip(tables, kept, strict=True)
        ]

        def move():
            super(PagedCache, self).select(rows)
            self.state = self.state._replace(pos=max(table.length for table in tables))
            self.tables = tables

        if self.private:
            self.pool.grow(len(kept) * blocks_for(self.capacity))
        self._change(changed, move)

    def _change(self, rows, move, *arguments):
        """A change of the pool and the cache's own move, both or neither."""
        self.settle()
        before, change = (self.state, self.tables), Change(self.pool, rows)
        try:
            change.do()
            move(*arguments)
        except BaseException:
            self.state, self.tables = before
            change.undo()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks its rows use, a shared one counted once; the whole pool's are
        `pool.nbytes`."""
        used = {block for table in self.tables for block in table.blocks}
        return len(used) * self.pool.block_bytes


class PagedInt8Cache(PagedCache):
    """Pages of int8, the numbers of `Int8Cache`."""

    bits = 8


class PagedInt4Cache(PagedCache):
    """Pages of int4 with a scale and a minimum for each token and head: unlike KIVI's groups, a
    token is whole as it comes."""

    bits = 4
