"""The caches of `cache` as the engine sees them: addresses and strides, no copies."""

from collections.abc import MutableMapping
from ctypes import addressof, byref, c_int32, c_void_p

import torch

from ..affine import packed_bytes
from ..cache import KINDS, BlockPool, Int8Cache, PagedCache, StaticCache, WindowCache
from .structs import Cache

MOST_TOKENS = 2**31 - 1


class View:
    """The engine's structure of a cache, and what keeps its memory alive."""

    def __init__(self, storage, places, strides, affine=(0, 0, 0), **fields):
        """`places`: for each layer the addresses in `storage` of keys, values and the scales of
        both (of floats: any)."""
        self.arrays = [(c_void_p * len(places))(*column) for column in zip(*places, strict=True)]
        self.storage, self.rows = storage, None
        self.struct = Cache(*self.arrays, None, *strides, *affine, **fields)
        self.reference, self.window = byref(self.struct), fields.get("window", 0)

    def lay(self, rows: list[list[int]], tokens: int | None = None) -> "View":
        """The same over the blocks of each row, and the `tokens` that a row has slots for (None: in
        its blocks)."""
        if rows != self.rows:
            widest = max(map(len, rows)) or 1
            flat = [block for row in rows for block in (*row, *[0] * (widest - len(row)))]
            self.batch, self.table = len(rows), (c_int32 * len(flat))(*flat)
            self.struct.table, self.struct.blocks = addressof(self.table), widest
            self.tokens = widest * self.struct.block if tokens is None else tokens
            self.rows = [list(row) for row in rows]
        return self

    def seen(self, tokens: int) -> int:
        """How many of so many tokens one query sees at the most."""
        return min(tokens, self.window + self.struct.sinks) if self.window else tokens


class Standing:
    """What stands in for a step in `view` where there is none: its stores are the cache's own."""

    def __init__(self, cache):
        self.cache, self.stores, self.end = cache, list(cache.state.stores), 0


def check_kind(cache) -> None:
    """ValueError unless the engine can read and write such a cache, or the pool of one."""
    holder = cache.pool if isinstance(cache, PagedCache) else cache
    if type(holder) not in (BlockPool, Int8Cache, StaticCache, WindowCache):
        names = {kind: name for name, kind in KINDS.items()}
        name = names.get(type(cache), type(cache).__name__)
        raise ValueError(
            f"the C engine has no cache {name!r}: choose static, window, int8, paged, "
            "paged-int8 or paged-int4, or backend 'eager'"
        )
    if getattr(holder, "starts", None) is not None:
        raise ValueError(
            "the C engine pads no rows: give unequal prompts to generate_batch, or choose a "
            "paged cache or backend 'eager'"
        )
    coded = type(holder) is Int8Cache or getattr(holder, "bits", None) is not None
    where = torch.device(holder.device or "cpu")
    if where.type != "cpu" or not (coded or holder.dtype in (None, torch.float32)):
        raise ValueError(
            f"a cache of {holder.dtype} on {where}: the engine takes float32 on the CPU, or choose "
            "backend 'eager'"
        )


def view(cache, step=None, known: MutableMapping | None = None) -> View:
    """How the engine reads and writes this cache in `step`, or as it stands; storage is made if
    there is none yet. ValueError as of `check_kind`.

    `known` keeps the views of caches and pools for as long as their storage stays where it is."""
    paged = isinstance(cache, PagedCache)
    holder = cache.pool if paged else cache
    made = None if known is None else known.get(holder)
    if made is None:
        check_kind(cache)
    into = Standing(cache) if step is None else step
    rows = blocks_of(cache, step) if paged else None
    storage = (pool_storage(cache.pool),) if paged else layer_storage(cache, into)
    fresh = made is None or not same(made.storage, storage)
    if fresh:
        make = pages if paged else int8 if type(cache) is Int8Cache else floats
        made = make(holder, storage)
        if known is not None:
            known[holder] = made
    if paged:
        made.lay(rows)
    elif fresh:
        endless = MOST_TOKENS if type(cache) is WindowCache else None
        made.lay([[row] for row in range(cache.batch)], endless)
    if type(cache) is WindowCache:
        keep(cache, storage, into)
    if step is None and fresh and not paged:
        cache.state = cache.state._replace(stores=storage)
    return made


def pool_view(pool: BlockPool, rows: list[list[int]], known: MutableMapping) -> View:
    """The same of these blocks of a pool, those of each row. ValueError unless all are in use."""
    for block in {block for row in rows for block in row}:
        pool.check(block)
    storage, made = (pool_storage(pool),), known.get(pool)
    if made is None or not same(made.storage, storage):
        made = known[pool] = pages(pool, storage)
    return made.lay(rows)


def same(old: tuple, new: tuple) -> bool:
    """Whether both hold the very same objects: equal tensors at other addresses will not do."""
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))


def blocks_of(cache, step) -> list[list[int]]:
    """The blocks of each row in a step, ready to be written, or those that the tables have."""
    if step is None:
        rows = [table.blocks for table in cache.tables]
        for block in {block for row in rows for block in row}:
            cache.pool.check(block)
        return rows
    if not step.room.prepared:
        step.room.prepare()
    return [row for _, row, _ in step.room.rows]


def pool_storage(pool) -> torch.Tensor:
    """The blocks of every layer, made in float32 if there are none yet."""
    if pool.store is None:
        pool.layer_store(0, like=torch.empty(0))
    return pool.store if pool.bits else float32(pool.store)


def layer_storage(cache, step) -> tuple:
    """What each layer stores, made by the step if there is nothing yet."""
    if not all(step.stores):
        like = torch.empty(cache.batch, cache.cfg.kv_heads, 0, cache.cfg.head_dim)
        for i, layer in enumerate(cache.layers):
            if type(cache) is Int8Cache:
                rows = (2, cache.capacity)
                step.stores[i] = step.stores[i] or layer.reserve(like, rows, like.shape[3], 1)
            else:
                layer.room(step, like, slots_of(cache))
    return tuple(step.stores)


def slots_of(cache) -> int:
    """Token slots of a row of a static cache or a window."""
    return cache.sinks + cache.ring if type(cache) is WindowCache else cache.capacity


def float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself; ValueError unless it is contiguous FP32 on the CPU."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(
            f"a cache of {tensor.dtype} on {tensor.device}: the engine takes float32 on the CPU"
        )
    return tensor


def addresses(parts) -> list[list[int]]:
    """Where tensors begin, layer by layer."""
    return [[x.data_ptr() for x in layer] for layer in parts]


def keep(cache, storage, step) -> None:
    """What a full ring lets go is written over at once, and comes back if the step does not come
    to its end."""
    if step.end <= slots_of(cache):
        return
    slots = cache.slots(torch.arange(step.before.pos, step.end))
    slots = slice(int(slots[0]), int(slots[0]) + 1) if len(slots) == 1 else slots
    step.overwritten += [(x, slots, x[:, :, slots].clone()) for pair in storage for x in pair]


def floats(cache, storage) -> View:
    """Keys and values (B, Hkv, slots, D), of a static cache or a window."""
    Hkv, D, slots = cache.cfg.kv_heads, cache.cfg.head_dim, slots_of(cache)
    parts = [(float32(k), float32(v), k, v) for k, v in storage]
    window = type(cache) is WindowCache
    fields = {"window": cache.window, "sinks": cache.sinks, "ring": cache.ring} if window else {}
    strides = 4 * Hkv * slots * D, 4 * D, 4 * slots * D
    return View(storage, addresses(parts), strides, bits=32, block=slots, **fields)


def int8(cache, storage) -> View:
    """Codes (B, Hkv, 2, capacity, D), keys and values side by side, and scales (…, 1)."""
    Hkv, n, D = cache.cfg.kv_heads, cache.capacity, cache.cfg.head_dim
    parts = [(c[:, :, 0], c[:, :, 1], s[:, :, 0], s[:, :, 1]) for c, s in storage]
    strides, affine = (2 * Hkv * n * D, D, 2 * n * D), (4 * Hkv * n, 2, 4 * n)
    return View(storage, addresses(parts), strides, affine, bits=8, block=n)


def pages(pool, storage) -> View:
    """The blocks of a pool, (2, L, blocks, block_size, Hkv, D or bytes), scales behind codes."""
    store = storage[0]
    item, (_, _, _, size, Hkv, width) = store.element_size(), store.shape
    strides = item * size * Hkv * width, item * Hkv * width, item * width
    behind = packed_bytes(pool.cfg.head_dim, pool.bits) if pool.bits else 0
    parts = [(k, v, k[..., behind:], v[..., behind:]) for k, v in zip(*store.unbind(), strict=True)]
    affine = strides if pool.bits else (0, 0, 0)
    return View(storage, addresses(parts), strides, affine, bits=pool.bits or 32, block=size)
