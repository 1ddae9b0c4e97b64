"""A model for engine.wasm: an image of the linear memory that the engine works in, so that a host
copies it in, adds its own base to the pointers, and calls.

The image holds the weights as the C engine packs them and the structures of engine.c as 32-bit
WebAssembly lays them out; behind it, zero at first and so not in it, lie keys and values for the
whole context, the rows of a step and what it gives."""

from ctypes import Structure, _Pointer, c_uint32, c_void_p, sizeof
from functools import cache

from ..model import Transformer
from ..native import structs
from ..native.checks import check_model
from ..native.pack import Held, whole

ALIGNED = 16
REACH = 2**32 - 2**26  # bytes, and room for the engine and a step's rows


@cache
def wasm32(kind: type) -> type:
    """A structure of structs.py where a pointer has 4 bytes, and anything else as it is."""
    if issubclass(kind, (_Pointer, c_void_p)):
        return c_uint32
    if not issubclass(kind, Structure):
        return kind
    fields = [(name, wasm32(one)) for name, one in kind._fields_]
    return type(f"{kind.__name__}32", (Structure,), {"_fields_": fields})


class Image:
    """Bytes that grow; `pointers` are where those lie that hold offsets in it. `room` counts what
    lies behind them."""

    def __init__(self):
        self.bytes, self.pointers, self.room, self.offsets = bytearray(ALIGNED), [], 0, {}

    def add(self, data: bytes) -> int:
        at = len(self.bytes)
        self.bytes += data + bytes(-len(data) % ALIGNED)
        return at

    def reserve(self, size: int) -> int:
        """The offset of so many bytes behind the image, once nothing is added any more."""
        at = len(self.bytes) + self.room
        self.room += size + -size % ALIGNED
        return at

    def write(self, at: int, value: int) -> None:
        self.bytes[at : at + 4] = value.to_bytes(4, "little")

    def point(self, at: int, to: int) -> None:
        self.write(at, to)
        self.pointers.append(at)

    def fill(self, at: int, value: Structure) -> int:
        """Write a structure at `at`; its pointers lead where `offsets` says their addresses are."""
        for name, kind in value._fields_:
            there, one = at + getattr(wasm32(type(value)), name).offset, getattr(value, name)
            if isinstance(one, Structure):
                self.fill(there, one)
            elif wasm32(kind) is kind:
                self.bytes[there : there + sizeof(kind)] = bytes(kind(one))
            elif kind is c_void_p and one:
                self.point(there, self.offsets[one])
        return at

    def structure(self, value: Structure) -> int:
        return self.fill(self.add(bytes(sizeof(wasm32(type(value))))), value)


def to_web(model: Transformer) -> tuple[dict, bytes]:
    """What a host needs to run `model`, FP32 or quantized, in engine.wasm: a header of numbers, and
    the image.

    The header has `pointers`, where a host adds the address it copied the image to; `size`, what
    image and working memory take together; the offsets of `model`, its `head` and its number of
    `layers` (int32), of `cache`, of the rows of a step (`token`, `sequence`, `position`: int32) and
    of what they give (`hidden`, `logits`, `attention`: float32); `read`, the bytes of the model
    that a step reads; and `context`, `vocab`, `width`, `heads`.
    ValueError for a model that the engine does not know, or that 32-bit addresses do not reach."""
    check_model(model)
    cfg, held, image = model.cfg, Held(), Image()
    struct = whole(model, held)
    cached = 8 * cfg.n_layers * cfg.kv_heads * cfg.head_dim * cfg.context
    check_reach(sum(tensor.nbytes for tensor in held.tensors) + cached)
    for tensor in held.tensors:
        if tensor.data_ptr() not in image.offsets:
            image.offsets[tensor.data_ptr()] = image.add(tensor.numpy().tobytes())
    block, kind = sizeof(wasm32(structs.Block)), wasm32(structs.Model)
    blocks = image.add(bytes(cfg.n_layers * block))
    for i in range(cfg.n_layers):
        image.fill(blocks + i * block, struct.blocks[i])
    at = image.structure(struct)
    image.point(at + kind.blocks.offset, blocks)
    header = {
        "model": at,
        "head": at + kind.head.offset,
        "layers": at + kind.layers.offset,
        "cache": _cache(image, cfg),
        "token": image.reserve(4 * cfg.context),
        "sequence": image.reserve(4 * cfg.context),
        "position": image.reserve(4 * cfg.context),
        "hidden": image.reserve(4 * cfg.context * cfg.d_model),
        "logits": image.reserve(4 * cfg.vocab_size),
        "attention": image.reserve(4 * cfg.n_heads * cfg.context),
        "heads": cfg.n_heads,
        "context": cfg.context,
        "vocab": cfg.vocab_size,
        "width": cfg.d_model,
    }
    header |= {"size": len(image.bytes) + image.room, "pointers": image.pointers}
    header["read"] = _read(struct, held)
    return header, bytes(image.bytes)


def check_reach(size: int) -> None:
    """ValueError for a model and cache of more bytes than WebAssembly addresses."""
    if size > REACH:
        raise ValueError(
            f"the model and its cache take {size / 2**30:,.1f} GiB, and WebAssembly reaches "
            f"{REACH / 2**30:,.1f}: give a smaller context or fewer bits, or export to ONNX"
        )


def _read(struct: structs.Model, held: Held) -> int:
    """Bytes that a step reads of the model: all but its tables, of which it takes a row."""
    names = [name for name, kind in structs.Matrix._fields_ if kind is c_void_p]
    head = {getattr(struct.head, name) for name in names}
    rows = {struct.table, *(getattr(struct.embedding, name) for name in names)} - head
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in held.tensors}
    return sum(size for address, size in sizes.items() if address not in rows)


def _cache(image: Image, cfg) -> int:
    """The structure of a contiguous FP32 cache of one sequence, as `NativeModel.room` has it; its
    keys and values lie behind the image."""
    tokens, Hkv, D = cfg.context, cfg.kv_heads, cfg.head_dim
    layers = range(cfg.n_layers)
    keys, values = (image.add(bytes(4 * cfg.n_layers)) for _ in "kv")
    table = image.add(bytes(4))  # one block, the first
    strides = 4 * Hkv * tokens * D, 4 * D, 4 * tokens * D
    value = structs.Cache(None, None, None, None, None, *strides, 0, 0, 0, 32, tokens, 1)
    at, kind = image.structure(value), wasm32(structs.Cache)
    parts = {"k": keys, "v": values, "k_affine": keys, "v_affine": values, "table": table}
    for name, to in parts.items():
        image.point(at + getattr(kind, name).offset, to)
    for array in (keys, values):
        for i in layers:
            image.point(array + 4 * i, image.reserve(strides[0]))
    return at
