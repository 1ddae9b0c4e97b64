"""The memory of a paged cache: blocks of token slots, counted references, prefixes found again
(Kwon et al. 2023).

Whoever takes, shares or gives back blocks does it by a `Change`, which happens or does not: an
exception in its middle, an interrupt too, leaves tables and counts as they were."""

from collections import OrderedDict
from itertools import count

import torch

from ..model import ModelConfig
from .quantized import decode, encode, encoded_bytes


class PoolExhausted(RuntimeError):
    """No block is free; nothing that was stored is lost."""


class BlockPool:
    """Storage of `blocks` blocks of `block_size` token slots, keys and values of every layer, for
    one model.

    A block is free or in use, with a count of `references`. A freed block whose tokens are known
    keeps them until it is allocated again, least recently freed first, so a later prompt that
    begins alike may revive it. Storage, (2, L, blocks, block_size, Hkv, D), is made at the first
    write; `dtype` and `device` None: those of that write. With `bits` 8 or 4 a token's D numbers of
    a head are codes beside a float16 scale (and at 4 a minimum) of their own, in bytes; so a block
    still holds whole tokens, to be shared, copied and cut as ever. `dtype` is then that of what is
    read. ValueError for an impossible size or number of bits, and for any use of a block that is
    not in use."""

    def __init__(
        self,
        cfg: ModelConfig,
        blocks: int,
        block_size: int = 16,
        *,
        bits: int | None = None,
        dtype=None,
        device=None,
    ):
        for name, value in (("blocks", blocks), ("block_size", block_size)):
            if value < 1:
                raise ValueError(f"{name} {value} of the pool is not positive: give at least 1")
        if bits not in (None, 8, 4):
            raise ValueError(
                f"a pool of {bits} bits is unknown: choose 8, 4 or None for full precision"
            )
        self.cfg, self.block_size, self.bits, self.dtype, self.device = (
            cfg,
            block_size,
            bits,
            dtype,
            device,
        )
        self.store = None
        self.references = [0] * blocks
        self.free = OrderedDict.fromkeys(range(blocks))  # in the order of allocation
        # (number of the prefix before, the block's tokens) -> (its own number, block)
        self.prefixes = {}
        self.known = {}  # block -> its key in `prefixes`
        # never reused, so that a prefix number stands for one sequence of tokens for ever
        self.numbers = count(1)

    @property
    def blocks(self) -> int:
        return len(self.references)

    @property
    def used(self) -> int:
        return self.blocks - len(self.free)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, keys and values of every layer; 0 before the first write."""
        return 0 if self.store is None else self.store.nbytes // self.blocks

    @property
    def nbytes(self) -> int:
        """Bytes of the whole storage, free blocks included."""
        return self.block_bytes * self.blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens: ceil(tokens / block_size)."""
        return -(-tokens // self.block_size)

    def allocate(self) -> int:
        """A free block, now in use once, its old content forgotten. PoolExhausted when there is
        none."""
        block = next(self._free())
        self.forget(block)
        self.put(block, 1)
        return block

    def _free(self):
        """The free blocks in the order of allocation, and then PoolExhausted."""
        yield from self.free
        raise PoolExhausted(
            f"all {self.blocks} blocks of the pool are in use: "
            "release a sequence, or make a larger pool"
        )

    def share(self, block: int) -> int:
        """One more reference to a block in use."""
        self.check(block)
        self.put(block, self.references[block] + 1)
        return block

    def release(self, block: int) -> None:
        """One reference less; without any, the block is free, and the next to be allocated unless
        its tokens are known."""
        self.check(block)
        self.put(block, self.references[block] - 1)

    def put(self, block: int, references: int) -> None:
        """Set the count of a block; without any it is free."""
        self.references[block] = references
        if references:
            self.free.pop(block, None)
        else:
            self.free[block] = None
            self.free.move_to_end(block, last=block in self.known)

    def check(self, block: int) -> None:
        """ValueError unless the block is in use."""
        if not (0 <= block < self.blocks and self.references[block]):
            raise ValueError(
                f"block {block} is not in use: it was freed or never allocated, so allocate one or share one in use"
            )

    def match(self, tokens: list[int]) -> "BlockTable":
        """A table that shares the longest known prefix of `tokens` in full blocks, one token at
        least left to compute.

        A dictionary compares keys, not only their hashes: a prefix is found by the number of the
        prefix before it and by its own tokens, so by induction it is found only when all its tokens
        are equal."""
        table, blocks, before = BlockTable(self), [], 0
        for chunk in self._chunks(tokens[:-1]):
            before, block = self.prefixes.get((before, chunk), (None, None))
            if block is None:
                break
            blocks.append(block)  # revived, where it was free
        Change(self, [(table, blocks, len(blocks) * self.block_size)]).do()
        return table

    def remember(self, table: "BlockTable", tokens: list[int]) -> None:
        """Let `match` find the full blocks of `table`, whose tokens these are; the first block of
        equal tokens is kept."""
        before = 0
        for chunk, block in zip(self._chunks(tokens[: table.length]), table.blocks, strict=False):
            key = (before, chunk)
            if key not in self.prefixes:
                self.forget(block)
                self.prefixes[key], self.known[block] = (next(self.numbers), block), key
            before = self.prefixes[key][0]

    def forget(self, block: int) -> None:
        """No prefix leads to this block any more: its content is about to change."""
        key = self.known.pop(block, None)
        if key is not None:
            del self.prefixes[key]

    def grow(self, blocks: int) -> None:
        """Make it a pool of at least `blocks` blocks; those there keep their numbers and their
        content."""
        if self.store is not None and blocks > self.store.shape[2]:
            shape = (*self.store.shape[:2], blocks - self.store.shape[2], *self.store.shape[3:])
            self.store = torch.cat((self.store, self.store.new_zeros(shape)), dim=2)
        new = range(self.blocks, blocks)
        self.free.update(dict.fromkeys(new))
        self.references += [0] * len(new)

    def write(self, i: int, slots: torch.Tensor, new: torch.Tensor) -> None:
        """Keys and values (2, n, Hkv, D) of layer `i` go to these n slots."""
        store = self._layer(i, like=new)
        store.index_copy_(
            1, slots, new.to(store.dtype) if self.bits is None else encode(new, self.bits)
        )

    def read(self, i: int, slots: torch.Tensor | slice) -> torch.Tensor:
        """Keys and values of layer `i` in these n slots: (2, n, Hkv, D), of a slice a view where
        they are not codes."""
        store = self.store[:, i].flatten(1, 2)
        rows = store[:, slots] if isinstance(slots, slice) else store.index_select(1, slots)
        return rows if self.bits is None else decode(rows, self.bits, self.cfg.head_dim, self.dtype)

    def _layer(self, i, like):
        """The slots of layer `i`, a view (2, blocks·block_size, Hkv, D or bytes); made like `like`
        at first."""
        if self.store is None:
            self.dtype, self.device = self.dtype or like.dtype, self.device or like.device
            width = (
                self.cfg.head_dim
                if self.bits is None
                else encoded_bytes(self.cfg.head_dim, self.bits)
            )
            shape = (2, self.cfg.n_layers, self.blocks, self.block_size, self.cfg.kv_heads, width)
            self.store = torch.zeros(
                shape, dtype=self.dtype if self.bits is None else torch.uint8, device=self.device
            )
        return self.store[:, i].flatten(1, 2)

    def _chunks(self, tokens):
        ends = range(self.block_size, len(tokens) + 1, self.block_size)
        return [tuple(tokens[end - self.block_size : end]) for end in ends]


class Change:
    """Blocks and lengths of tables, and the counts of their blocks, all at once or not at all.

    `rows` are (table, its blocks, its length) as they will be; `counts` the blocks' references
    then, or None to count them by the rows. `do` and `undo` set values and add nothing up, so that
    either may be repeated after an interrupt."""

    def __init__(self, pool: BlockPool, rows, counts: dict[int, int] | None = None):
        self.pool, self.rows = pool, rows
        self.counts = self._counted() if counts is None else counts
        self.old_rows = [(table, table.blocks, table.length) for table, _, _ in rows]
        self.old_counts = {b: pool.references[b] for b in reversed(self.counts)}

    def _counted(self):
        counts: dict[int, int] = {}
        for table, _, _ in self.rows:
            for block in reversed(table.blocks):  # given back last first
                self.pool.check(block)
                counts[block] = counts.get(block, self.pool.references[block]) - 1
        for _, blocks, _ in self.rows:
            for block in blocks:
                counts[block] = counts.get(block, self.pool.references[block]) + 1
        return counts

    def do(self) -> None:
        try:
            self._set(self.rows, self.counts)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        self._set(self.old_rows, self.old_counts)

    def _set(self, rows, counts):
        for block, references in counts.items():
            self.pool.put(block, references)
        for table, blocks, length in rows:
            table.blocks, table.length = blocks, length


class Reservation(Change):
    """Room for T more tokens in every table, in blocks of its own, written before it is taken.

    A block that others refer to is replaced by a copy (copy-on-write). PoolExhausted when there are
    too few; nothing is changed before `do`, but for `prepare`."""

    def __init__(self, pool: BlockPool, tables: list["BlockTable"], T: int):
        counts: dict[int, int] = {}
        rows, free = [], pool._free()
        self.copies: list[tuple[int, int]] = []  # (shared block, its copy)
        self.written: list[int] = []
        self.prepared = False

        def take():
            block = next(free)
            counts[block] = 1
            return block

        for table in tables:
            for block in table.blocks:
                pool.check(block)
            blocks = list(table.blocks)
            for i in range(table.length // pool.block_size, len(blocks)):
                shared, references = blocks[i], counts.get(blocks[i], pool.references[blocks[i]])
                if references > 1:
                    counts[shared], blocks[i] = references - 1, take()
                    self.copies.append((shared, blocks[i]))
                self.written.append(blocks[i])
            while len(blocks) < pool.blocks_for(table.length + T):
                blocks.append(take())
                self.written.append(blocks[-1])
            rows.append((table, blocks, table.length))
        super().__init__(pool, rows, counts)

    def prepare(self) -> None:
        """Before the first write: what is written over is known no more, and copies are made."""
        for block in self.written:
            self.pool.forget(block)
        for shared, copy in self.copies:
            self.pool.store[:, :, copy] = self.pool.store[:, :, shared]
        self.prepared = True

    def do(self) -> None:
        if any(self.pool.references[b] != n for b, n in self.old_counts.items()):
            raise RuntimeError(
                "others took blocks of the pool in the middle of a forward: run one at a time"
            )
        super().do()


class BlockTable:
    """One sequence of a pool: token i lies in slot i % block_size of block `blocks[i //
    block_size]`."""

    def __init__(self, pool: BlockPool):
        self.pool, self.blocks, self.length = pool, [], 0

    def reserve(self, T: int) -> None:
        """Room to write T more tokens, in blocks of its own. PoolExhausted leaves all as it is."""
        room = Reservation(self.pool, [self], T)
        room.prepare()
        room.do()

    def fork(self) -> "BlockTable":
        """The same tokens in the same blocks, shared until one of the two is written."""
        other = BlockTable(self.pool)
        blocks = self.blocks[: self.pool.blocks_for(self.length)]
        Change(self.pool, [(other, blocks, self.length)]).do()
        return other

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on and release the blocks that none is left in; 0
        releases them all."""
        length = min(length, self.length)
        blocks = self.blocks[: self.pool.blocks_for(length)]
        Change(self.pool, [(self, blocks, length)]).do()
