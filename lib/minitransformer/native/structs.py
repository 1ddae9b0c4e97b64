"""The structures of engine.c, field by field, and the signatures of its entries."""

from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_void_p,
)


def structure(name: str, **fields) -> type[Structure]:
    """A ctypes structure of these fields, each the type of one name or of several in a row."""
    pairs = [(one, kind) for names, kind in fields.items() for one in names.split("__")]
    return type(name, (Structure,), {"_fields_": pairs})


Matrix = structure(
    "Matrix",
    data=c_void_p,
    column__panel=c_int64,
    scale__zero__bias__table__exact=c_void_p,
    rows__columns__bits__group__groups__words__each__middle__act_bits__act_symmetric=c_int32,
)
Norm = structure("Norm", weight__bias=c_void_p, eps=c_float)
Block = structure(
    "Block",
    q__k__v__out__gate__up__down=Matrix,
    attention_norm__ffn_norm__q_norm__k_norm=Norm,
)
Model = structure(
    "Model",
    blocks=POINTER(Block),
    table=c_void_p,
    embedding__head=Matrix,
    norm=Norm,
    layers__heads__kv_heads__head_dim__width__ffn_dim__vocab__position__ffn__smeared=c_int32,
    threads=c_int32,
    grain=c_int64,
)
Cache = structure(
    "Cache",
    k__v__k_affine__v_affine=POINTER(c_void_p),
    table=c_void_p,
    block_stride__token_stride__head_stride__affine_block__affine_token__affine_head=c_int64,
    bits__block__blocks__window__sinks__ring=c_int32,
)
Sampling = structure("Sampling", temperature__top_p__penalty=c_float, top_k=c_int32)

NOT_FINITE, SCALE_OVERFLOW = -1, -2


def declare(engine):
    """The same library, its entries knowing their arguments."""
    model, kv, p = POINTER(Model), POINTER(Cache), c_void_p
    engine.engine_instructions.restype = c_char_p
    engine.engine_side.restype = c_int
    engine.engine_arena.restype = c_int64
    engine.engine_arena.argtypes = [model, c_int64, c_int64]
    engine.engine_step.argtypes = [model, kv, p, p, p, c_int, p, p, c_int64]
    engine.engine_multiply.argtypes = [model, POINTER(Matrix), p, c_int, p, p]
    engine.engine_best.argtypes = [model, p, c_int, p, c_int, p, p]
    engine.engine_generate.argtypes = [
        *(model, kv, POINTER(Sampling), c_int, p, c_int64, p, p, c_int),
        *(p, p, p, c_int, p, p, c_int64),
    ]
    return engine
