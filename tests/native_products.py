"""Products for the tests of the engine's kernels, and what they are by definition."""

import torch
from hypothesis import strategies as st

from minitransformer.affine import pack
from minitransformer.quant import QuantLinear, QuantScheme

EPS = torch.finfo(torch.float32).eps
ROWS = st.integers(1, 16)


def definition(layer, x):
    """Ŵ x̂ + b in float64, and what rounding in FP32 may change of it."""
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, QuantLinear):
        weight, x = layer.weight(), layer.activation(x)
    y = x.double() @ weight.double().T
    size = x.double().abs() @ weight.double().abs().T
    if bias is not None:
        y, size = y + bias.double(), size + bias.double().abs()
    return y.detach(), size.detach() * EPS * (x.shape[1] + 16) + 1e-37


@st.composite
def problems(draw):
    """A linear layer and its input, of numbers small and large, rows of zeros among them."""
    N, K, M = (
        draw(st.sampled_from([1, 2, 7, 8, 9, 16, 31, 65])),
        draw(st.sampled_from([1, 2, 3, 7, 8, 15, 32, 33, 64, 100, 131])),
        draw(ROWS),
    )
    g = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    weight = torch.randn(N, K, generator=g) * draw(st.sampled_from([1e-3, 1.0, 300.0]))
    x = torch.randn(M, K, generator=g) * draw(st.sampled_from([1e-20, 1.0, 1e10]))
    if draw(st.booleans()):
        weight[0], x[-1] = 0, 0
    if draw(st.booleans()):
        x = x.relu()
    linear = torch.nn.Linear(K, N, bias=draw(st.booleans()))
    linear.weight.data = weight
    return linear, x


@st.composite
def whole_problems(draw):
    """Codes, zero-points and activations of any value, or all at their ends, and steps of one: each
    sum is a whole number that FP32 holds, and each kernel must give it bit for bit."""
    N, K, bits = draw(st.integers(1, 40)), draw(st.integers(1, 250)), draw(st.integers(2, 8))
    group = draw(st.sampled_from([None, 8, 16, 32, 128]))
    scheme = QuantScheme(
        *(bits, "group" if group else "channel", group),
        symmetric=draw(st.booleans()),
        scale_dtype="float32",
        activation_bits=8,
    )
    layer = QuantLinear.from_linear(torch.nn.Linear(K, N, bias=False), scheme)
    g, ends = torch.Generator().manual_seed(draw(st.integers(0, 9999))), draw(st.booleans())

    def some(low, high, *shape):
        numbers = torch.randint(low, high + 1, shape, generator=g)
        return torch.where(numbers * 2 > low + high, high, low) if ends else numbers

    layer.weight.codes.copy_(pack(some(0, 2**bits - 1, N, K), bits))
    layer.weight.scale.fill_(1)
    if layer.weight.zero is not None:
        layer.weight.zero.copy_(some(0, 255, *layer.weight.zero.shape))
    x = some(-127, 127, draw(ROWS), K).float()
    x[:, 0] = 127  # the step is one
    return layer, x
