"""What the engine is called with, as bytes that another process can load at any address."""

import struct
from ctypes import (
    POINTER,
    Array,
    Structure,
    addressof,
    c_int64,
    c_void_p,
    cast,
    sizeof,
    string_at,
)

from minitransformer.native.structs import Block, Cache, Matrix, Model, structure

ALIGNED = 64
Problem = structure(  # as in native_foreign.c
    "Problem",
    model=POINTER(Model),
    matrix=POINTER(Matrix),
    x=c_void_p,
    cache=POINTER(Cache),
    token__sequence__position=c_void_p,
    rows__tokens=c_int64,
)


def pointers(kind, at=0):
    """Where in a ctypes type its pointers lie, in bytes."""
    if issubclass(kind, Array):
        for i in range(kind._length_):
            yield from pointers(kind._type_, at + i * sizeof(kind._type_))
    elif issubclass(kind, Structure):
        for name, part in kind._fields_:
            yield from pointers(part, at + getattr(kind, name).offset)
    elif kind is c_void_p or hasattr(kind, "contents"):
        yield at


def image(problem: Problem, tensors, structures) -> bytes:
    """The bytes that native_foreign.c reads: the problem, then whatever of the `tensors` and ctypes
    `structures` it points into, directly or through others."""
    stores = [tensor.untyped_storage() for tensor in tensors]
    known = [(store.data_ptr(), store.nbytes(), []) for store in stores]
    known += [(addressof(s), sizeof(s), [*pointers(type(s))]) for s in structures]
    parts = [(addressof(problem), sizeof(problem), [*pointers(Problem)])]
    data, starts, places = bytearray(), {}, []
    for address, size, inside in parts:  # grows while it is walked
        starts[address] = len(data)
        data += string_at(address, size) + bytes(-size % ALIGNED)
        for at in inside:
            if to := int.from_bytes(string_at(address + at, 8), "little"):
                part = next(k for k in known if k[0] <= to < k[0] + k[1])
                places.append((starts[address] + at, part[0], to - part[0]))
                if part not in parts:
                    parts.append(part)
    for at, part, further in places:
        data[at : at + 8] = (starts[part] + further).to_bytes(8, "little")
    head = struct.pack("<2q", len(data), len(places))
    return head + data + struct.pack(f"<{len(places)}q", *(at for at, _, _ in places))


def blocks_of(model: Model):
    """The array of blocks that a model's structure points to."""
    return (Block * model.layers).from_address(cast(model.blocks, c_void_p).value)
