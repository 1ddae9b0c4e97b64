"""A module's tensors in the engine's layout: panels of 8 rows, codes in words of 32 bits.

Made at load and never saved; every structure comes with the tensors that keep its memory alive."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..affine import unpack
from ..model import FFNS, POSITIONS, Transformer
from ..quant import QuantEmbedding, QuantLinear, QuantWeight, codebook
from .memory import Memory
from .structs import Block, Matrix, Model, Norm

LANES = 8


class Held:
    """Tensors whose addresses structures hold; `pointer` takes one in. `side` is how many panels
    stand side by side, 1 or 2: what the engine says that they shall."""

    def __init__(self, side: int = 1):
        self.tensors, self.side, self.memory = [], side, Memory()

    def pointer(self, tensor: torch.Tensor | None) -> int | None:
        """The address of a contiguous copy, or None."""
        if tensor is None:
            return None
        self.tensors.append(self.memory.hold(tensor.detach()))
        return self.tensors[-1].data_ptr()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def panels(x: torch.Tensor, side: int) -> torch.Tensor:
    """Rows side by side, eight to a panel, filled with zeros to pairs of panels, of which `side`
    stand beside each other: (N, n) -> (panels / side, n, 8 side)."""
    if short := -len(x) % (2 * LANES):
        x = F.pad(x, (0, 0, 0, short))
    return x.unflatten(0, (-1, LANES * side)).transpose(1, 2)


def words(codes: torch.Tensor, bits: int, side: int) -> torch.Tensor:
    """Codes (N, K) uint8 -> words of 32 bits, int32 in `panels`; see Matrix in engine.c."""
    columns = 32 // bits
    parts = F.pad(codes, (0, -codes.shape[1] % columns)).unflatten(1, (-1, columns))
    if bits == 4:  # a byte is column i of the first four and column i of the last
        parts = parts[..., :4] | parts[..., 4:] << 4
    return panels(parts.contiguous().view(torch.int32).squeeze(-1), side)  # low byte first


def padded_bias(layer: nn.Module) -> torch.Tensor | None:
    """The bias filled with zeros to pairs of panels, or None."""
    bias = getattr(layer, "bias", None)
    return None if bias is None else F.pad(bias.detach().float(), (0, -len(bias) % (2 * LANES)))


def matrix(layer: nn.Module, held: Held) -> Matrix:
    """The structure of a linear layer or an embedding; ValueError for one the engine does not
    know."""
    made = Matrix(bias=held.pointer(padded_bias(layer)), group=1)
    if isinstance(layer, (QuantLinear, QuantEmbedding)):
        return quantized(layer, made, held)
    if type(layer) not in (nn.Linear, nn.Embedding):
        raise ValueError(
            f"a {type(layer).__name__} is no layer of the engine: give a model as load() or "
            "quantize() returns it, before accelerate() and not prepared for training"
        )
    return full(layer.weight, made, held)


def full(weight: torch.Tensor, made: Matrix, held: Held) -> Matrix:
    """The structure of a matrix of floats (N, K); ValueError unless they are FP32 on the CPU."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"a weight of {weight.dtype} on {weight.device}: the engine takes float32 on the CPU, "
            "give model.float().cpu()"
        )
    made.rows, made.columns = weight.shape
    made.data, made.bits = held.pointer(panels(weight.detach(), held.side)), 32
    made.column, made.panel = LANES * held.side, LANES * made.columns
    return made


def quantized(layer: QuantLinear | QuantEmbedding, made: Matrix, held: Held) -> Matrix:
    """Codes where the engine has a kernel for their groups; floats, made once, where it has none:
    columns kept apart, and groups that are no multiple of 8."""
    weight: QuantWeight = layer.weight
    s = weight.scheme
    if not torch.isfinite(weight.scale.float()).all():
        raise ValueError("a scale is not finite: quantize the model again")
    if s.activation_bits and isinstance(layer, QuantLinear) and weight.inner:
        made.act_bits, made.act_symmetric = s.activation_bits, s.activation_symmetric
        if s.activation_granularity == "tensor":
            raise ValueError(
                "activations with one scale for a tensor: the engine takes chunks and batches as "
                "rows, and a row must not depend on its neighbours; give activation_granularity "
                "'token'"
            )
    groups = s.groups(weight.inner)
    if s.outliers or (groups > 1 and s.group_size % 8):
        if s.outliers and made.act_bits:
            exact = torch.zeros(weight.columns, dtype=torch.uint8)
            exact[weight.index.long()] = 1
            made.exact = held.pointer(exact)
        return full(weight(), made, held)
    made.rows, made.columns, made.bits = weight.rows, weight.columns, 8 if s.bits > 4 else 4
    made.group = s.group_size if groups > 1 else weight.columns
    columns = 32 // made.bits
    made.groups, made.words = groups, -(-weight.columns // columns)
    made.each = -(-made.group // columns)
    middle, codes = 2 ** (s.bits - 1), weight.integers()
    if made.bits == 8:  # signed, in bytes
        codes, made.middle = codes - middle, 0
    else:
        made.middle = middle
    made.data = held.pointer(words(codes, made.bits, held.side))
    scale = weight.scale.float().expand(weight.rows, groups)
    made.scale = held.pointer(panels(scale, held.side))
    if weight.zero is not None:
        zero = unpack(weight.zero, s.bits, groups).expand(weight.rows, groups)
        made.zero = held.pointer(panels(zero - (middle - made.middle), held.side))
    if s.codebook:
        made.table = held.pointer(codebook())
    return made


def norm(module: nn.Module, held: Held) -> Norm:
    """LayerNorm or RMSNorm; an identity is one without a weight."""
    if isinstance(module, nn.Identity):
        return Norm()
    eps = torch.finfo(torch.float32).eps if module.eps is None else module.eps
    bias = getattr(module, "bias", None)
    return Norm(held.pointer(module.weight.float()), held.pointer(bias), eps)


def block(layer: nn.Module, held: Held) -> Block:
    """The structure of a `model.Block`, its matrices quantized or not."""
    a, f = layer.attention, layer.ffn
    layers = {"q": a.q, "k": a.k, "v": a.v, "out": a.out, "up": f.up, "down": f.down}
    if f.gate is not None:
        layers["gate"] = f.gate
    norms = {
        "attention_norm": layer.attention_norm,
        "ffn_norm": layer.ffn_norm,
        "q_norm": a.q_norm,
        "k_norm": a.k_norm,
    }
    return Block(
        **{name: matrix(one, held) for name, one in layers.items()},
        **{name: norm(one, held) for name, one in norms.items()},
    )


def tied_head(embedding: Matrix, layer: nn.Linear, held: Held) -> Matrix:
    """The embedding's matrix with the head's own: a bias, and activations that an embedding has
    none of."""
    head, own = Matrix.from_buffer_copy(embedding), Held(held.side)
    made = matrix(layer, own)
    head.act_bits, head.act_symmetric = made.act_bits, made.act_symmetric
    head.bias = held.pointer(padded_bias(layer))
    if made.exact:
        exact = next(t for t in own.tensors if t.data_ptr() == made.exact)
        head.exact = held.pointer(exact)
    return head


def whole(model: Transformer, held: Held) -> Model:
    """The structure of a model; ValueError for one the engine does not know."""
    cfg = model.cfg
    blocks = (Block * cfg.n_layers)(*(block(layer, held) for layer in model.blocks))
    embedding = matrix(model.embedding, held)
    tied = model.head.weight is model.embedding.weight
    head = tied_head(embedding, model.head, held) if tied else matrix(model.head, held)
    table = None if model.table is None else held.pointer(model.table.float())
    return Model(
        *(blocks, table, embedding, head, norm(model.norm, held)),
        *(cfg.n_layers, cfg.n_heads, cfg.kv_heads, cfg.head_dim, cfg.d_model, cfg.ffn_dim),
        *(cfg.vocab_size, POSITIONS.index(cfg.position), FFNS.index(cfg.ffn), cfg.smeared_keys),
        threads=1,
        grain=1,
    )
