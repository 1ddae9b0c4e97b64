"""The memory of a paged cache: blocks of token slots, counted references, prefixes found again
(Kwon et al. 2023)."""

from collections import OrderedDict
from collections.abc import Hashable
from itertools import count

import torch

from ..fields import whole
from ..model import ModelConfig
from .codes import decode, encode, encoded_bytes
from .tables import BlockTable, Change


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
        self, cfg: ModelConfig, blocks: int, block_size=16, *, bits=None, dtype=None, device=None
    ):
        blocks = whole("blocks", blocks)
        block_size = whole("block_size", block_size)
        if bits not in (None, 8, 4):
            raise ValueError(
                f"a pool of {bits} bits is unknown: choose 8, 4 or None for full precision"
            )
        self.cfg, self.block_size, self.bits = cfg, block_size, bits
        self.dtype, self.device = dtype, device
        self.store: torch.Tensor | None = None
        self.owner: Hashable = None
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

    def free_blocks(self):
        """The free blocks in the order of allocation, and then PoolExhausted."""
        yield from self.free
        raise PoolExhausted(
            f"all {self.blocks} blocks of the pool are in use: "
            "release a sequence, or make a larger pool"
        )

    def put(self, block: int, references: int) -> None:
        """Set the count of a block; without any it is free, and the next to be allocated unless
        its tokens are known."""
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
                f"block {block} is not in use: it was freed or never allocated, "
                "so let the table reserve one"
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

    def claim(self, owner: Hashable) -> None:
        """Say whose keys and values are to be found: the prefixes of any other owner are forgotten.

        An owner stands for weights (`decode.weights_of`): equal tokens have equal keys under equal
        weights only."""
        if owner != self.owner:
            self.clear()
            self.owner = owner

    def clear(self) -> None:
        """Forget every prefix. Blocks in use stay with their tables."""
        for block in list(self.known):
            self.forget(block)

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
        store = self.layer_store(i, like=new)
        rows = new.to(store.dtype) if self.bits is None else encode(new, self.bits)
        store.index_copy_(1, slots, rows)

    def read(self, i: int, slots: torch.Tensor | slice) -> torch.Tensor:
        """Keys and values of layer `i` in these n slots: (2, n, Hkv, D), of a slice a view where
        they are not codes."""
        store = self.store[:, i].flatten(1, 2)
        rows = store[:, slots] if isinstance(slots, slice) else store.index_select(1, slots)
        return rows if self.bits is None else decode(rows, self.bits, self.cfg.head_dim, self.dtype)

    def layer_store(self, i, like):
        """The slots of layer `i`, a view (2, blocks·block_size, Hkv, D or bytes); made like `like`
        at first."""
        if self.store is None:
            self.dtype, self.device = self.dtype or like.dtype, self.device or like.device
            width, kind = self.cfg.head_dim, self.dtype
            if self.bits is not None:
                width, kind = encoded_bytes(width, self.bits), torch.uint8
            shape = (2, self.cfg.n_layers, self.blocks, self.block_size, self.cfg.kv_heads, width)
            self.store = torch.zeros(shape, dtype=kind, device=self.device)
        return self.store[:, i].flatten(1, 2)

    def _chunks(self, tokens):
        ends = range(self.block_size, len(tokens) + 1, self.block_size)
        return [tuple(tokens[end - self.block_size : end]) for end in ends]
