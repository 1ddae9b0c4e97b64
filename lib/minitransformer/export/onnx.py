"""One ONNX graph for prefill and steps: ids and the keys and values so far -> logits and the keys
and values.

Inputs and outputs have the names that `transformers.js` and `optimum` use: input_ids,
attention_mask, position_ids, past_key_values.N.key and .value -> logits, present.N.key and .value;
batch and lengths are dynamic, and a past of length 0 begins. Quantized matrices go in as the
integers they are (`com.microsoft.MatMulNBits`), the embedding's too. One message of ONNX holds less
than 2 GiB: weights beyond that lie beside the graph, in model.onnx_data, where every runtime looks
for them."""

import json
import math
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..affine import pack
from ..files import check_replaceable, check_room, replacing_folder
from ..model import position_table
from .huggingface import config, family
from .weights import (
    WRITTEN,
    epsilon,
    floats,
    nbytes,
    quantized,
    refuse,
    write_json,
    write_tokenizer,
)

OPSET, IR = 21, 10
LARGEST = 2**31 - 2**24  # bytes of weights in one message, and room for its nodes
INSIDE = 1024  # bytes of a tensor that stays in the graph: shapes and constants are read from there
PAGE = 4096  # where a tensor of model.onnx_data begins, so that it can be mapped
GROUPS = (256, 128, 64, 32, 16)  # what MatMulNBits takes
NEEDS = "ONNX export needs the package onnx: pip install 'minitransformer[export]'"


def to_onnx(model, directory: str | Path, tokenizer=None, accuracy_level: int = 0) -> Path:
    """Write onnx/model.onnx, with model.onnx_data beside it where the weights pass 2 GiB, a
    config.json and, with a tokenizer, its files into `directory`, which is replaced as a whole.

    `accuracy_level` is that of MatMulNBits: 0 computes in floats, 4 rounds activations to int8,
    which is faster, and differs between machines.

    ValueError names a quantization scheme that the kernel does not take, and what the folder holds
    that no export wrote, ImportError the package that is missing."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(NEEDS) from error
    directory, cfg = Path(directory), model.cfg
    check_replaceable(directory, WRITTEN, "export")
    check_room(directory, nbytes(model))
    graph = Graph(model, accuracy_level)
    outputs = graph.forward()
    with replacing_folder(directory) as part:
        path = part / "onnx" / "model.onnx"
        path.parent.mkdir()
        if large := graph.nbytes() > LARGEST:
            with open(f"{path}_data", "wb") as beside:
                proto = graph.proto(outputs, beside)
        else:
            proto = graph.proto(outputs)
        onnx.save_model(proto, path)
        onnx.checker.check_model(str(path) if large else proto)
        if cfg.position == "rope":
            about = config(family(cfg), model)
            about["transformers.js_config"] = {"dtype": "fp32"}  # the file's name says no other
            about["transformers.js_config"] |= {"use_external_data_format": True} if large else {}
            write_json(part / "config.json", about)
            write_json(part / "generation_config.json", {"do_sample": False})
        write_tokenizer(part, without_clusters(tokenizer), cfg)
    return directory


def without_clusters(tokenizer):
    """The tokenizer in regular expressions that JavaScript knows too: a character with its marks
    for a grapheme cluster, so that an emoji of several characters is several words."""
    if tokenizer is None:
        return None
    about = json.loads(tokenizer.to_str())
    pattern = (about["pre_tokenizer"] or {}).get("pattern", {})
    if "\\X" not in pattern.get("Regex", ""):
        return tokenizer
    pattern["Regex"] = pattern["Regex"].replace("\\X", "\\P{M}\\p{M}*")
    return Tokenizer.from_str(json.dumps(about))


def initializer(name: str, array: np.ndarray, beside=None):
    """A tensor of the graph, its bytes in it, or, from `INSIDE` on, in the file `beside`."""
    from onnx import TensorProto, helper, numpy_helper

    array = np.asarray(array, order="C")
    if beside is None or array.nbytes < INSIDE:
        return numpy_helper.from_array(array, name)
    beside.seek(-beside.tell() % PAGE, 1)
    place = {"location": Path(beside.name).name, "offset": beside.tell(), "length": array.nbytes}
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    beside.write(memoryview(array).cast("B"))
    return tensor


class Graph:
    """The nodes of one model's forward, in order; a value is the name of a tensor."""

    def __init__(self, model, accuracy_level=0):
        self.model, self.cfg, self.accuracy_level = model, model.cfg, accuracy_level
        self.tensors, self.packed = floats(model), quantized(model)
        self.nodes, self.weights, self.count = [], {}, 0

    def used(self) -> dict[str, np.ndarray]:
        """The weights that the nodes so far take."""
        names = {name for node in self.nodes for name in node.input}
        return {name: array for name, array in self.weights.items() if name in names}

    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.used().values())

    def proto(self, outputs: list[str], beside=None):
        """The model whose `forward` gave `outputs`; with a file `beside`, its weights go there."""
        from onnx import TensorProto as T
        from onnx import helper

        cfg = self.cfg
        cached = ["batch_size", cfg.kv_heads, "past_sequence_length", cfg.head_dim]
        total = "total_sequence_length"
        made = [*cached[:2], total, cached[3]]
        ids = ["batch_size", "sequence_length"]
        pairs = [(i, x) for i in range(cfg.n_layers) for x in ("key", "value")]

        def value(name, kind, shape):
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            self.nodes,
            "minitransformer",
            [
                value("input_ids", T.INT64, ids),
                value("attention_mask", T.INT64, ["batch_size", total]),
                value("position_ids", T.INT64, ids),
                *(value(f"past_key_values.{i}.{x}", T.FLOAT, cached) for i, x in pairs),
            ],
            [
                value(outputs[0], T.FLOAT, [*ids, cfg.vocab_size]),
                *(value(name, T.FLOAT, made) for name in outputs[1:]),
            ],
            [initializer(name, array, beside) for name, array in self.used().items()],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
        proto.producer_name = "minitransformer"
        return proto

    # --- building

    def op(self, kind: str, *inputs: str, out=None, domain="", **attributes) -> str:
        """One node with one output, whose name is returned."""
        from onnx import helper

        self.count += 1
        out = out or f"{kind}_{self.count}"
        node = helper.make_node(kind, list(inputs), [out], domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def const(self, value, kind=np.int64) -> str:
        """An initializer; equal ones are one."""
        array = np.asarray(value, dtype=kind)
        name = f"c_{array.dtype}_{array.shape}_{array.tolist()}"
        self.weights[name] = array
        return name

    def weight(self, name: str, array=None) -> str:
        """A tensor of the model, or one made of it, as an initializer."""
        if name not in self.weights:
            array = self.tensors[name].numpy() if array is None else array
            self.weights[name] = array
        return name

    def reshape(self, x, *shape) -> str:
        """0 keeps a dimension, -1 is what remains."""
        return self.op("Reshape", x, self.const(shape))

    # --- the model

    def forward(self) -> list[str]:
        """Every node; the names of the outputs."""
        cfg, table = self.cfg, position_table(self.cfg)
        x, rope = self.embedding("input_ids"), None
        if table is not None:
            at = self.weight("table", table.numpy())
            at = self.op("Gather", at, "position_ids")  # (B, T, n)
            if cfg.position == "sinusoidal":
                x = self.op("Add", x, at)
            else:
                rope = self.halves(self.op("Unsqueeze", at, self.const([1])))  # (B, 1, T, D/2)
        bias, present = self.mask(), []
        for i in range(cfg.n_layers):
            y, key, value = self.attention(
                i, self.norm(f"blocks.{i}.attention_norm", x), rope, bias
            )
            x = self.op("Add", x, y)
            x = self.op("Add", x, self.ffn(i, self.norm(f"blocks.{i}.ffn_norm", x)))
            present += [key, value]
        return [self.linear("head", self.norm("norm", x), out="logits"), *present]

    def mask(self) -> str:
        """0 where a query may look, the lowest float elsewhere: (B, 1, T, S), causal and without
        padding."""
        one, zero = self.const(1), self.const(0)
        S = self.op("Gather", self.op("Shape", "attention_mask"), one)
        T = self.op("Gather", self.op("Shape", "input_ids"), one)
        query = self.op("Range", self.op("Sub", S, T), S, one)
        query = self.op("Unsqueeze", query, self.const([1]))  # (T, 1)
        causal = self.op("LessOrEqual", self.op("Range", zero, S, one), query)  # (T, S)
        real = self.op("Cast", "attention_mask", to=9)  # bool
        real = self.op("Unsqueeze", real, self.const([1, 2]))  # (B, 1, 1, S)
        seen = self.op("And", causal, real)
        lowest = self.const(np.finfo(np.float32).min, np.float32)
        return self.op("Where", seen, self.const(0.0, np.float32), lowest)

    def attention(self, i, x, rope, bias):
        """What the attention of block `i` adds, and its keys and values (B, Hkv, S, D)."""
        cfg, name = self.cfg, f"blocks.{i}.attention"
        H, Hkv, D = cfg.n_heads, cfg.kv_heads, cfg.head_dim
        q, k = (self.heads(f"{name}.{p}", x, n, rope) for p, n in (("q", H), ("k", Hkv)))
        v = self.heads(f"{name}.v", x, Hkv, None)
        past = f"past_key_values.{i}"
        key = self.op("Concat", f"{past}.key", k, axis=2, out=f"present.{i}.key")
        value = self.op("Concat", f"{past}.value", v, axis=2, out=f"present.{i}.value")
        k, v = self.smeared(name, key) if cfg.smeared_keys else key, value
        if H != Hkv:  # (B, Hkv, H/Hkv, T, D) against (B, Hkv, 1, S, D)
            q = self.op("Reshape", q, self.const([0, Hkv, H // Hkv, -1, D]))
            k, v, bias = (self.op("Unsqueeze", t, self.const([2])) for t in (k, v, bias))
        last = list(range(5 if H != Hkv else 4))
        k = self.op("Transpose", k, perm=[*last[:-2], last[-1], last[-2]])
        scale = self.const(1 / math.sqrt(D), np.float32)
        score = self.op("Add", self.op("MatMul", self.op("Mul", q, scale), k), bias)
        y = self.op("MatMul", self.op("Softmax", score, axis=-1), v)
        if H != Hkv:
            y = self.op("Reshape", y, self.const([0, H, -1, D]))
        y = self.reshape(self.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, H * D)
        return self.linear(f"{name}.out", y), key, value

    def smeared(self, name, key) -> str:
        """Keys (B, Hkv, S, D) mixed with the ones before them; padding has none."""
        smear = self.model.get_submodule(f"{name}.smear")
        turn, keep = (
            self.weight(f"smear.{x}", getattr(smear, x).numpy()) for x in ("turn", "keep")
        )
        real = self.op("Cast", "attention_mask", to=1)  # float
        k = self.op("Mul", key, self.op("Unsqueeze", real, self.const([1, 3])))  # (B, 1, S, 1)
        pads = self.const([0, 0, 1, 0, 0, 0, -1, 0])  # one in front, one less at the end
        before = self.op("Pad", self.op("MatMul", k, turn), pads)
        return self.op("Add", before, self.op("Mul", k, keep))

    def heads(self, name, x, count, rope) -> str:
        """Projected, normalized where the model does, and rotated: (B, count, T, D)."""
        x = self.reshape(self.linear(name, x), 0, 0, count, self.cfg.head_dim)
        if self.cfg.qk_norm and not name.endswith("v"):
            x = self.norm(f"{name}_norm", x, rms=True)
        x = self.op("Transpose", x, perm=[0, 2, 1, 3])
        if rope is None:
            return x
        (a, b), (cos, sin) = self.halves(x), rope
        left = self.op("Sub", self.op("Mul", a, cos), self.op("Mul", b, sin))
        right = self.op("Add", self.op("Mul", b, cos), self.op("Mul", a, sin))
        return self.op("Concat", left, right, axis=-1)

    def halves(self, x) -> tuple[str, str]:
        from onnx import helper

        self.count += 1
        outs = (f"half_{self.count}a", f"half_{self.count}b")
        self.nodes.append(helper.make_node("Split", [x], list(outs), axis=-1, num_outputs=2))
        return outs

    def ffn(self, i, x) -> str:
        name, kind = f"blocks.{i}.ffn", self.cfg.ffn
        h = self.linear(f"{name}.up", x)
        if kind == "swiglu":
            gate = self.linear(f"{name}.gate", x)
            h = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), h)
        else:
            h = self.op("Gelu" if kind == "gelu" else "Relu", h)
            h = self.op("Mul", h, h) if kind == "relu2" else h
        return self.linear(f"{name}.down", h)

    def norm(self, name, x, rms=None) -> str:
        weight, eps = self.weight(f"{name}.weight"), epsilon(self.model.get_submodule(name))
        if not (self.cfg.norm == "rmsnorm" if rms is None else rms):
            bias = self.weight(f"{name}.bias")
            return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)
        square = self.op("ReduceMean", self.op("Mul", x, x), self.const([-1]))
        root = self.op("Sqrt", self.op("Add", square, self.const(eps, np.float32)))
        return self.op("Mul", self.op("Div", x, root), weight)

    def linear(self, name, x, out=None) -> str:
        """x Wᵀ + b, in floats or on packed integers."""
        key = f"{name}.weight"
        source = "embedding.weight" if name == "head" and self.cfg.tied else key
        bias = f"{name}.bias" if f"{name}.bias" in self.tensors else None
        end = out if bias is None else None
        if source in self.packed:
            y = self.nbits(source, x, end)
        else:
            made = self.weight(f"{key}.T", self.tensors[source].numpy().T)
            y = self.op("MatMul", x, made, out=end)
        return y if bias is None else self.op("Add", y, self.weight(bias), out=out)

    def nbits(self, name, x, out) -> str:
        weight = self.packed[name]
        inputs, block = self.integers(name, weight)
        shape = dict(K=weight.columns, N=weight.rows, bits=weight.scheme.bits, block_size=block)
        if self.accuracy_level:
            shape["accuracy_level"] = self.accuracy_level
        return self.op("MatMulNBits", x, *inputs, out=out, domain="com.microsoft", **shape)

    def integers(self, name, weight) -> tuple[list[str], int]:
        """Codes (N, K/block, bytes), scales and, when asymmetric, zero-points; the block size."""
        s, K = weight.scheme, weight.columns
        fits = [g for g in GROUPS if K % g == 0 and (s.group_size or g) % g == 0]
        plain = not (s.codebook or s.outliers or s.activation_bits)
        if s.bits not in (2, 4, 8) or not plain or not fits:
            refuse(
                f"{name} is {s}, which MatMulNBits does not take",
                "quantize weights only, to 2, 4 or 8 bits in groups of 16 to 256 that divide "
                f"its {K} columns",
            )
        block = fits[0]
        scale, zero = (x[:, ::block] for x in weight.grid())  # (N, K/block)
        codes = weight.codes.numpy().reshape(weight.rows, K // block, -1)
        found = [
            self.weight(f"{name}.codes", codes),
            self.weight(f"{name}.scale", scale.numpy()),
        ]
        if weight.zero is not None:
            found.append(self.weight(f"{name}.zero", pack(zero, s.bits).numpy()))
        return found, block

    def embedding(self, ids) -> str:
        """Rows of the embedding, (B, T, C); only those asked for are dequantized."""
        name = "embedding.weight"
        if name not in self.packed:
            return self.op("Gather", self.weight(name), ids)
        weight = self.packed[name]
        s, K = weight.scheme, weight.columns
        (codes, scale, *_), block = self.integers(name, weight)
        rows = self.reshape(self.op("Gather", codes, ids), 0, 0, -1)  # (B, T, bytes)
        per = 8 // s.bits
        if per > 1:  # low bits first
            shifts = self.const(np.arange(per) * s.bits, np.uint8)
            rows = self.op("Unsqueeze", rows, self.const([-1]))
            rows = self.op("BitShift", rows, shifts, direction="RIGHT")
            rows = self.op("BitwiseAnd", rows, self.const(2**s.bits - 1, np.uint8))
        rows = self.op("Cast", self.reshape(rows, 0, 0, K // block, block), to=1)  # float
        zero = self.const(2.0 ** (s.bits - 1), np.float32)
        if weight.zero is not None:
            table = weight.grid()[1][:, ::block].numpy()
            zero = self.op("Gather", self.weight(f"{name}.offset", table), ids)
            zero = self.op("Unsqueeze", zero, self.const([-1]))
        scale = self.op("Unsqueeze", self.op("Gather", scale, ids), self.const([-1]))
        rows = self.op("Mul", self.op("Sub", rows, zero), scale)
        return self.reshape(rows, 0, 0, K)
