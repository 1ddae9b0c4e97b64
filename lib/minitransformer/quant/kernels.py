"""The low-precision matrix products that torch and ONNX Runtime have for a CPU, each checked
against the reference at load.

Storage stays plain (`schemes`); a kernel's own layout depends on the instruction set, so it is made
here, at load, and is never saved. What a kernel cannot do it refuses with `KernelError`, and what
it does wrongly it is caught doing."""

import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..affine import pack
from .conformance import TOLERANCE, disagreement
from .layers import QuantLinear
from .ort import session_of
from .packed import KernelError, Packed
from .rows import int8_rows

# How a kernel that is not built, or is built otherwise, fails on one system or another.
MISSING = (AttributeError, ImportError, OSError, RuntimeError, TypeError)


class KernelLinear(Packed):
    """A linear layer on someone else's kernel: packs once, checks itself, then (..., K) -> (..., N)
    from FP32 to FP32, or in the type of the model.

    `opaque_bytes` counts packed weights that live outside any tensor torch can measure."""

    opaque_bytes = 0
    computes = torch.float32  # None: in the type of the model

    def __init__(self, layer: QuantLinear):
        super().__init__()
        self.rows, self.columns = layer.weight.rows, layer.weight.columns
        self.dtype, self.bias = layer.weight.dtype, layer.bias
        if layer.bias is not None and self.computes not in (None, layer.bias.dtype):
            self.bias = nn.Parameter(layer.bias.detach().float(), layer.bias.requires_grad)
        try:
            with warnings.catch_warnings():
                # torch announces that FBGEMM will leave in a later release
                warnings.simplefilter("ignore", UserWarning)
                self.load(layer.weight)
                self.check(layer)
        except KernelError:
            raise
        except MISSING as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise KernelError(
                f"this build has no {type(self).__name__} kernel ({reason})"
            ) from None

    def forward(self, x):
        y = self.multiply(x.reshape(-1, self.columns).float())
        return self.answer(y).view(*x.shape[:-1], self.rows)

    @torch.no_grad()
    def check(self, layer: QuantLinear):
        """Compare with the dequantized reference (`disagreement`); KernelError beyond
        `TOLERANCE`."""
        bare = 0 if self.bias is None else self.bias
        self.error, shown_by = disagreement(lambda x: self(x).float() - bare, layer.weight)
        if not self.error < TOLERANCE:  # also catches nan
            raise KernelError(
                f"relative error {self.error:.3g} on {shown_by}, at most {TOLERANCE} is allowed: "
                "use the reference"
            )

    def extra_repr(self):
        return f"in_features={self.columns}, out_features={self.rows}, error={self.error:.1e}"


class Int8Pack(KernelLinear):
    """`aten::_weight_int8pack_mm`: int8 weights, bf16 activations, dequantized in registers."""

    def load(self, weight):
        # the AVX512 kernel does not check this, and reads out of bounds
        codes, scale = int8_rows(weight, multiple=16)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.bfloat16())
        self.held = self.codes, self.scale, self.bias

    def multiply(self, x):
        codes, scale, bias = self.held
        y = torch._weight_int8pack_mm(x.bfloat16(), codes, scale)
        return y.float() if bias is None else y + bias  # adding an FP32 bias widens by itself


class Int4Pack(KernelLinear):
    """`aten::_weight_int4pack_mm_for_cpu`: int4 weights in groups, bf16 activations; w = (u - 8)·s
    + (8 - z)·s."""

    GROUPS = (256, 128, 64, 32)

    def load(self, weight):
        scheme, K = weight.scheme, weight.columns
        fits = [g for g in self.GROUPS if K % g == 0 and (scheme.group_size or g) % g == 0]
        if scheme.bits != 4 or scheme.codebook or scheme.outliers or not fits:
            raise KernelError(
                f"the kernel takes int4 in groups of 32, 64, 128 or 256 that divide the {K} "
                f"columns, not {scheme}"
            )
        self.group, short = fits[0], -self.rows % 16  # the kernel wants 16 rows at a time
        scale, zero = (x[:, :: self.group] for x in weight.grid())  # (N, K/group)
        # (N + short, K/group, 2)
        grid = F.pad(torch.stack((scale, (8 - zero) * scale), -1), (0, 0, 0, 0, 0, short))
        codes = F.pad(weight.integers().int(), (0, 0, 0, short)).contiguous()
        self.register_buffer("codes", torch._convert_weight_to_int4pack_for_cpu(codes, 1))
        self.register_buffer("grid", grid.transpose(0, 1).bfloat16().contiguous())
        self.held = self.codes, self.grid, self.bias

    def multiply(self, x):
        codes, grid, bias = self.held
        y = torch._weight_int4pack_mm_for_cpu(x.bfloat16(), codes, self.group, grid)
        y = y if y.shape[1] == self.rows else y[:, : self.rows]
        return y.float() if bias is None else y + bias


class OneDnn(KernelLinear):
    """`onednn::qlinear_pointwise`: int8 weights, unsigned int8 activations, one symmetric scale a
    token."""

    def load(self, weight):
        codes, scale = int8_rows(weight)
        self.opaque_bytes = codes.numel()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(self.rows, dtype=torch.int32))
        self.held = torch.ops.onednn.qlinear_prepack(codes, None), self.scale, self.zero

    def multiply(self, x):
        step = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127  # (M, 1)
        codes = ((x / step).round() + 128).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 128, *self.held, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y * step if self.bias is None else torch.addcmul(self.bias, y, step)


class Fbgemm(KernelLinear):
    """`fbgemm_linear_int8_weight_fp32_activation`: int8 weights, activations quantized inside the
    kernel.

    It gives a whole batch one activation scale, so rows go one at a time: what a token gets cannot
    depend on its neighbours."""

    def load(self, weight):
        codes, scale = int8_rows(weight)
        packed = torch.fbgemm_pack_quantized_matrix(codes)
        self.opaque_bytes = codes.numel()
        # Asked for its sizes only.
        shape = torch.zeros(1, 1, dtype=torch.int8).expand(self.rows, self.columns)
        self.register_buffer("offsets", codes.sum(1, dtype=torch.int32))
        self.register_buffer("none", torch.zeros(1).expand(self.rows).contiguous())
        self.register_buffer("scale", scale)
        self.held = (shape, packed, self.offsets, 1.0, 0, self.none), self.scale, self.bias

    def forward(self, x):
        if x.numel() == self.columns and x.dtype is torch.float32:
            return self.answer(self.row(x))
        return super().forward(x)

    def multiply(self, x):
        return torch.cat([self.row(r) for r in x.split(1)])

    def row(self, x):
        matrix, scale, bias = self.held
        y = torch.fbgemm_linear_int8_weight_fp32_activation(x, *matrix)
        return y * scale if bias is None else torch.addcmul(bias, y, scale)


class MatMulNBits(KernelLinear):
    """ONNX Runtime's `MatMulNBits`: 2, 4 or 8 bits in groups, activations rounded to int8 inside,
    on one thread.

    It holds its own packing of the codes and, in FP32, the scales as given, packed, and times the
    sums of each group's codes. A single row passes through two fixed buffers: binding new ones at
    each call takes longer than a small product."""

    GROUPS = (256, 128, 64, 32, 16)

    def load(self, weight):
        scheme, N, K = weight.scheme, weight.rows, weight.columns
        fits = [g for g in self.GROUPS if K % g == 0 and (scheme.group_size or g) % g == 0]
        if scheme.bits not in (2, 4, 8) or scheme.codebook or scheme.outliers or not fits:
            raise KernelError(
                f"the kernel takes 2, 4 or 8 bits in groups of 16 to 256 that divide the {K} "
                f"columns, not {scheme}"
            )
        groups = K // fits[0]
        scale, zero = (x[:, :: fits[0]] for x in weight.grid())  # (N, groups)
        tensors = {"codes": weight.codes.view(N, groups, -1), "scale": scale.flatten().contiguous()}
        if weight.zero is not None:
            tensors["zero"] = pack(zero, scheme.bits).flatten()
        self.opaque_bytes = (
            weight.codes.numel() + 3 * 4 * N * groups + tensors.get("zero", scale[:0]).numel()
        )
        session = session_of(
            tensors, K=K, N=N, bits=scheme.bits, block_size=fits[0], accuracy_level=4
        )
        self.register_buffer("one", torch.empty(1, K))
        self.register_buffer("out", torch.empty(1, N))
        bound = session.io_binding()
        bound.bind_input("x", "cpu", 0, "float32", (1, K), self.one.data_ptr())
        bound.bind_output("y", "cpu", 0, "float32", (1, N), self.out.data_ptr())
        self.held = session, bound, self.one, self.out, self.bias

    def multiply(self, x):
        session, bound, one, out, bias = self.held
        if len(x) == 1:
            one.copy_(x)
            session.run_with_iobinding(bound)
            return out.clone() if bias is None else out + bias
        y = torch.from_numpy(session.run(None, {"x": x.numpy(force=True)})[0])
        return y if bias is None else y + bias


class Dequantized(KernelLinear):
    """Floating-point weights made once: as fast as the plain model, and as large."""

    computes = None

    def load(self, weight):
        self.register_buffer("full", weight())

    _apply = nn.Module._apply  # plain tensors, which follow the model

    def forward(self, x):
        return F.linear(x.to(self.full.dtype), self.full, self.bias)


KERNELS = {
    "dequantized": Dequantized,
    "int8pack": Int8Pack,
    "int4pack": Int4Pack,
    "onednn": OneDnn,
    "fbgemm": Fbgemm,
    "onnxruntime": MatMulNBits,
}
