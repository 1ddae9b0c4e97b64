"""The caches of `cache` as the engine sees them: addresses and strides, no copies."""

from ctypes import c_void_p

import torch

from ..affine import packed_bytes
from ..cache import Int8Cache, PagedCache, StaticCache, WindowCache
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


def view(cache) -> View:
    """How the engine reads and writes this cache, its storage made if there is none yet.

    ValueError for a kind that the engine does not know, padded rows, or other than float32."""
    if isinstance(cache, PagedCache):
        return paged(cache)
    if isinstance(cache, Int8Cache):
        return int8(cache)
    if isinstance(cache, (StaticCache, WindowCache)):
        return contiguous(cache)
    raise ValueError(
        f"the engine has no {type(cache).__name__}: choose static, window, int8, paged, paged-int8 "
        "or paged-int4"
    )


def empty(cache) -> torch.Tensor:
    """Keys of no token: an update with them makes a layer's storage."""
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


def contiguous(cache) -> View:
    if getattr(cache, "starts", None) is not None:
        raise ValueError("the engine pads no rows: feed unequal prompts to a paged cache")
    window = isinstance(cache, WindowCache)
    room = cache.sinks + cache.ring if window else cache.capacity
    Hkv, D = cache.cfg.kv_heads, cache.cfg.head_dim
    for layer in cache.layers:
        if layer.k is None:
            layer.k = torch.zeros(cache.batch, Hkv, room, D, dtype=cache.dtype or torch.float32)
            layer.v = torch.zeros_like(layer.k)
    parts = [(float32(layer.k), float32(layer.v), None, None) for layer in cache.layers]
    fields = {"window": cache.window, "sinks": cache.sinks, "ring": cache.ring} if window else {}
    strides = 4 * Hkv * room * D, 4 * D, 4 * room * D
    made = View(parts, rows(cache.batch), strides, bits=32, block=room, **fields)
    if window:
        made.tokens = 2**31 - 1  # it has a slot for every token
    return made


def int8(cache) -> View:
    parts = []
    for layer in cache.layers:
        if not layer.parts:
            layer.update(empty(cache), empty(cache))
        codes, scales = layer.parts  # (B, Hkv, 2, capacity, D) and (…, 1)
        parts.append((codes[:, :, 0], codes[:, :, 1], scales[:, :, 0], scales[:, :, 1]))
    Hkv, n, D = cache.cfg.kv_heads, cache.capacity, cache.cfg.head_dim
    strides, affine = (2 * Hkv * n * D, D, 2 * n * D), (4 * Hkv * n, 2, 4 * n)
    return View(parts, rows(cache.batch), strides, affine, bits=8, block=n)


def paged(cache) -> View:
    """Blocks as they are reserved now: make the view after `positions`."""
    pool, D = cache.pool, cache.cfg.head_dim
    for block in {block for table in cache.tables for block in table.blocks}:
        pool.check(block)
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
        scales = (k[..., behind:], v[..., behind:]) if pool.bits else (None, None)
        parts.append((k, v, *scales))
    widest = max(1, *(len(table.blocks) for table in cache.tables))
    table = torch.tensor([t.blocks + [0] * (widest - len(t.blocks)) for t in cache.tables])
    return View(parts, table, strides, strides if pool.bits else (0, 0, 0), bits=bits, block=size)
