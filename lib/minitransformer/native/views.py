"""The caches of `cache` as the engine sees them: addresses and strides, no copies."""

from ctypes import c_void_p

import torch

from ..affine import packed_bytes
from ..cache import KINDS, BlockPool, Int8Cache, PagedCache, StaticCache, WindowCache
from .structs import Cache


class View:
    """The engine's structure of a cache, and the tensors that keep its memory alive."""

    def __init__(self, parts, table: torch.Tensor, strides, affine=(0, 0, 0), **fields):
        """`parts`: for each layer the tensors of keys, values and their scales, or None."""
        addresses = [[None if x is None else x.data_ptr() for x in layer] for layer in parts]
        arrays = [(c_void_p * len(parts))(*column) for column in zip(*addresses, strict=True)]
        self.table = table.to(torch.int32)  # (B, blocks)
        self.tokens = self.table.shape[1] * fields["block"]  # that one sequence has slots for
        self.held = parts, arrays
        self.struct = Cache(
            *arrays,
            self.table.data_ptr(),
            *strides,
            *affine,
            blocks=self.table.shape[1],
            **fields,
        )


class Standing:
    """What a step is to `view` where there is none: stores that the cache has at once."""

    def __init__(self, cache):
        self.cache, self.stores = cache, list(cache.state.stores)
        self.end, self.overwritten = 0, []


def check_kind(cache) -> None:
    """ValueError unless the engine can read and write such a cache, or the pool of one."""
    holder = cache.pool if isinstance(cache, PagedCache) else cache
    if type(holder) not in (BlockPool, Int8Cache, StaticCache, WindowCache):
        names = {kind: name for name, kind in KINDS.items()}
        name = names.get(type(cache), type(cache).__name__)
        raise ValueError(
            f"the native engine has no cache {name!r}: choose static, window, int8, paged, "
            "paged-int8 or paged-int4, or backend 'eager'"
        )
    if getattr(holder, "starts", None) is not None:
        raise ValueError(
            "the native engine pads no rows: give unequal prompts to generate_batch, or choose a "
            "paged cache or backend 'eager'"
        )
    coded = type(holder) is Int8Cache or getattr(holder, "bits", None) is not None
    where = torch.device(holder.device or "cpu")
    if where.type != "cpu" or not (coded or holder.dtype in (None, torch.float32)):
        raise ValueError(
            f"a cache of {holder.dtype} on {where}: the engine takes float32 on the CPU, or choose "
            "backend 'eager'"
        )


def view(cache, step=None) -> View:
    """How the engine reads and writes this cache in `step`, or as it stands; storage is made if
    there is none yet. ValueError as of `check_kind`."""
    check_kind(cache)
    if isinstance(cache, PagedCache):
        return paged(cache, step)
    into = step or Standing(cache)
    made = (int8 if isinstance(cache, Int8Cache) else contiguous)(cache, into)
    if step is None:
        cache.state = cache.state._replace(stores=tuple(into.stores))
    return made


def empty(cache) -> torch.Tensor:
    """Keys of no token, of which storage takes its shape."""
    return torch.empty(cache.batch, cache.cfg.kv_heads, 0, cache.cfg.head_dim)


def float32(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(
            f"a cache of {tensor.dtype} on {tensor.device}: the engine takes float32 on the CPU"
        )
    return tensor


def rows(batch: int) -> torch.Tensor:
    """A block a sequence."""
    return torch.arange(batch)[:, None]


def contiguous(cache, step) -> View:
    window = isinstance(cache, WindowCache)
    room = cache.sinks + cache.ring if window else cache.capacity
    Hkv, D = cache.cfg.kv_heads, cache.cfg.head_dim
    pairs = [layer.room(step, empty(cache), room) for layer in cache.layers]
    if window and step.end > room:  # it evicts, and might not come to its end
        slots = step.plan.slots
        step.overwritten += [(x, slots, x[:, :, slots].clone()) for pair in pairs for x in pair]
    parts = [(float32(k), float32(v), k, v) for k, v in pairs]
    fields = {"window": cache.window, "sinks": cache.sinks, "ring": cache.ring} if window else {}
    strides = 4 * Hkv * room * D, 4 * D, 4 * room * D
    made = View(parts, rows(cache.batch), strides, bits=32, block=room, **fields)
    if window:
        made.tokens = 2**31 - 1  # it has a slot for every token
    return made


def int8(cache, step) -> View:
    parts = []
    for i, layer in enumerate(cache.layers):
        if not step.stores[i]:
            rows_of = (2, cache.capacity)
            step.stores[i] = layer.reserve(empty(cache), rows_of, cache.cfg.head_dim, 1)
        codes, scales = step.stores[i]  # (B, Hkv, 2, capacity, D) and (…, 1)
        parts.append((codes[:, :, 0], codes[:, :, 1], scales[:, :, 0], scales[:, :, 1]))
    Hkv, n, D = cache.cfg.kv_heads, cache.capacity, cache.cfg.head_dim
    strides, affine = (2 * Hkv * n * D, D, 2 * n * D), (4 * Hkv * n, 2, 4 * n)
    return View(parts, rows(cache.batch), strides, affine, bits=8, block=n)


def paged(cache, step) -> View:
    """The blocks of the step, or those that the tables have."""
    pool, D = cache.pool, cache.cfg.head_dim
    if step is None:
        blocks = [table.blocks for table in cache.tables]
        for block in {block for row in blocks for block in row}:
            pool.check(block)
    else:
        if not step.room.prepared:
            step.room.prepare()
        blocks = [row for _, row, _ in step.room.rows]
    if pool.store is None:
        pool._layer(0, like=torch.empty(0))  # makes the storage, as the first write would
    if pool.bits is None:
        float32(pool.store)
    bits, item = pool.bits or 32, pool.store.element_size()
    _, _, _, size, Hkv, width = pool.store.shape
    strides = item * size * Hkv * width, item * Hkv * width, item * width
    parts = []
    for k, v in zip(*pool.store.unbind(), strict=True):
        behind = packed_bytes(D, bits) if pool.bits else 0
        scales = (k[..., behind:], v[..., behind:]) if pool.bits else (k, v)
        parts.append((k, v, *scales))
    widest = max(1, *map(len, blocks))
    table = torch.tensor([row + [0] * (widest - len(row)) for row in blocks])
    return View(parts, table, strides, strides if pool.bits else (0, 0, 0), bits=bits, block=size)
