"""Tables of blocks, and the changes that move blocks between them and their pool.

Whoever takes, shares or gives back blocks does it by a `Change`, which happens or does not: an
exception in its middle, an interrupt too, leaves tables and counts as they were."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pool import BlockPool


class Change:
    """Blocks and lengths of tables, and the counts of their blocks, all at once or not at all.

    `rows` are (table, its blocks, its length) as they will be; `counts` the blocks' references
    then, or None to count them by the rows. `do` and `undo` set values and add nothing up, so that
    either may be repeated after an interrupt."""

    def __init__(self, pool: "BlockPool", rows, counts: dict[int, int] | None = None):
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
            self._surely_undo()
            raise

    def _surely_undo(self) -> None:
        """A second interrupt may come in the middle of undoing: it sets values, so once more."""
        for _ in range(100):
            try:
                return self.undo()
            except BaseException:  # the first exception is the one that is raised
                continue
        self.undo()

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

    def __init__(self, pool: "BlockPool", tables: list["BlockTable"], T: int):
        counts: dict[int, int] = {}
        rows, free = [], pool.free_blocks()
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

    def __init__(self, pool: "BlockPool"):
        self.pool, self.blocks, self.length = pool, [], 0

    def ready(self, T: int) -> bool:
        """Whether T more tokens may be written where it stands: it has room for them in blocks
        that nobody shares, or knows by what they hold."""
        pool, own = self.pool, self.blocks[self.length // self.pool.block_size :]
        room = pool.block_size * len(self.blocks) - self.length
        return room >= T and all(pool.references[b] == 1 and b not in pool.known for b in own)

    def reserve(self, T: int) -> None:
        """Room to write T more tokens, in blocks of its own. PoolExhausted leaves all as it is."""
        reserve([self], T)

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on and release the blocks that none is left in; 0
        releases them all."""
        length = min(length, self.length)
        blocks = self.blocks[: self.pool.blocks_for(length)]
        Change(self.pool, [(self, blocks, length)]).do()


def reserve(tables: list[BlockTable], T: int) -> None:
    """`BlockTable.reserve` of tables of one pool, all or none of them."""
    if short := [table for table in tables if not table.ready(T)]:
        room = Reservation(short[0].pool, short, T)
        room.prepare()
        room.do()
