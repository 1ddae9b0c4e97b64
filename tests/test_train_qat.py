"""Quantization-aware training: the grid of training is the grid of deployment to the bit, and the
gradients are the rule's."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.checkpoint import load, save
from minitransformer.decode import Sampling, generate
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, QuantWeight, fake_quantize, quantize
from minitransformer.quant.schemes import fit_grid, grouped
from minitransformer.train import TrainConfig, convert, initialize, optimizer, prepare_qat, train
from minitransformer.train.qat import FakeLinear, FakeWeight

CFG = ModelConfig(vocab_size=50, d_model=32, n_heads=2, context=32)
RUN = TrainConfig(steps=6, batch_size=4, window=16, lr=1e-2, warmup=1, weight_decay=0.1)


def group(bits, size=32, **k):
    return QuantScheme(bits=bits, granularity="group", group_size=size, **k)


SCHEMES = [
    group(4),
    group(2, full_range=True),
    group(2, symmetric=False),
    group(3, 24, symmetric=False),
    QuantScheme(activation_bits=8),
    QuantScheme(granularity="tensor", symmetric=False, scale_dtype="float32"),
    QuantScheme(bits=4, embeddings=False),
]


def fresh(**k):
    return initialize(Transformer(replace(CFG, **k)), "scaled", 0)


def batch(step):
    return torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(step))


def ids():
    return batch(99)[:, :16]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_was_trained_is_what_is_deployed_bit_for_bit(tmp_path, scheme, tied):
    model = fresh(tied=tied)
    prepared = prepare_qat(model, scheme)
    assert torch.equal(
        prepared(ids()), quantize(model, scheme)(ids())
    )  # before the first step: rounding to nearest
    train(prepared, batch, RUN)
    small = convert(prepared)
    assert torch.equal(small(ids()), prepared(ids())) and small.scheme == scheme
    save(small, tmp_path / "q")
    assert torch.equal(load(tmp_path / "q")[0](ids()), prepared(ids()))
    assert not torch.equal(
        small(ids()), quantize(model, scheme)(ids())
    )  # and training did something


def test_a_mapping_of_schemes_trains_each_layer_on_its_own_grid():
    model = fresh()
    layers = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))]
    mapping = dict.fromkeys(layers) | {
        "embedding": group(4),
        "head": group(2),
        "blocks.0.ffn.up": QuantScheme(),
    }
    prepared = prepare_qat(model, mapping)
    train(prepared, batch, RUN)
    small = convert(prepared)
    assert torch.equal(small(ids()), prepared(ids())) and small.scheme == mapping
    assert {
        n.removesuffix(".weight"): m.scheme
        for n, m in small.named_modules()
        if isinstance(m, QuantWeight)
    } == {name: own for name, own in mapping.items() if own}


def test_the_argument_is_untouched_and_a_converted_model_is_apart():
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    prepared = prepare_qat(model, group(4))
    small = convert(prepared)
    logits = small(ids())
    train(prepared, batch, RUN)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and not hasattr(
        model, "scheme"
    )
    assert torch.equal(small(ids()), logits)


def test_a_tied_matrix_is_one_matrix_with_one_gradient_from_both_ends():
    prepared = prepare_qat(fresh(tied=True), group(4))
    assert prepared.head.weight is prepared.embedding.weight
    assert (
        sum(isinstance(m, FakeWeight) for m in prepared.modules()) == 7
    )  # the matrix of both, and six in the block
    small = convert(prepared)
    assert small.head.weight is small.embedding.weight and isinstance(
        small.head.weight, QuantWeight
    )
    logits = prepared(torch.tensor([[3]]))
    logits[0, 0, 7].backward()
    gradient = prepared.head.weight.full.grad
    assert gradient[3].norm() > 0 and gradient[7].norm() > 0 and gradient[9].norm() == 0


def reference(w, step, zero, low, high, size, weights):
    """(ŵ · weights).sum(), gradients to w and the gain by the rule written out, one weight at a
    time."""
    total, to_w, to_gain = 0.0, torch.zeros_like(w), torch.zeros_like(step)
    for n, k in torch.cartesian_prod(*map(torch.arange, w.shape)):
        g = k // size
        u = (w[n, k] / step[n, g]).round() + zero[n, g]
        inside = low <= u <= high
        code = u.clamp(low, high) - zero[n, g]
        total += code * step[n, g] * weights[n, k]
        to_w[n, k] = weights[n, k] if inside else 0.0
        to_gain[n, g] += (
            weights[n, k] * (code - (w[n, k] / step[n, g] if inside else 0.0)) * step[n, g]
        )
    return total, to_w, to_gain


@settings(deadline=None, max_examples=15)
@given(
    bits=st.integers(2, 4),
    kind=st.sampled_from(["symmetric", "asymmetric", "full range"]),
    columns=st.integers(1, 9),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_gradients_are_straight_through_inside_the_clamp_and_the_steps_own_outside(
    bits, kind, columns, size, seed
):
    scheme = group(bits, size, symmetric=kind != "asymmetric", full_range=kind == "full range")
    generator = torch.Generator().manual_seed(seed)
    full = torch.randn(2, columns, generator=generator)
    start = QuantWeight.from_tensor(full, scheme)
    fake = FakeWeight(nn.Parameter(full.clone()), start)
    assert torch.equal(fake(), start())
    with torch.no_grad():
        fake.gain -= 0.5 * torch.rand(
            fake.gain.shape, generator=generator
        )  # smaller steps: now some weights are clamped
    weights = torch.randn(2, columns, generator=generator)
    total = (fake() * weights).sum()
    total.backward()
    grid = fit_grid(grouped(full, scheme), scheme, fake.gain.detach().exp())
    step, zero = (x.double().squeeze(-1) for x in grid)
    want = reference(
        full.double(),
        step,
        zero,
        1 if kind == "symmetric" else 0,
        2**bits - 1,
        size,
        weights.double(),
    )
    torch.testing.assert_close(total.detach().double(), want[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fake.full.grad.double(), want[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fake.gain.grad.double().squeeze(-1), want[2], rtol=1e-3, atol=1e-4)
    assert torch.equal(fake.packed()(), fake())


@pytest.mark.parametrize(
    "scheme", [group(2), group(2, full_range=True), group(3, symmetric=False)], ids=str
)
def test_clipping_gives_the_first_steps_where_it_chooses_the_grid(scheme):
    model = fresh()
    prepared, clipped = prepare_qat(model, scheme, "mse"), quantize(model, scheme, "mse")
    shares = []
    for name, fake in prepared.named_modules():
        if isinstance(fake, FakeWeight):
            start = clipped.get_submodule(name)
            assert torch.equal(fake.packed().scale, start.scale)
            assert (
                fake.packed().integers() == start.integers()
            ).float().mean() > 0.99  # a zero-point may be a tie
            shares.append(fake.share.abs().flatten())
    assert 0.1 < torch.cat(shares).min() and torch.cat(shares).mean() < 0.95


def test_the_grid_follows_weights_that_grow():
    prepared = prepare_qat(fresh(), group(4))
    before = prepared.head.weight()
    with torch.no_grad():
        prepared.head.weight.full.mul_(8)
    assert torch.equal(prepared.head.weight(), 8 * before)


def test_rounded_inputs_pass_the_gradient_straight_on():
    start = QuantWeight.from_tensor(torch.eye(8), QuantScheme(activation_bits=4))
    layer = FakeLinear(FakeWeight(nn.Parameter(torch.eye(8)), start), None)
    x = torch.randn(3, 8, requires_grad=True)
    y = layer(x)
    assert torch.allclose(y, fake_quantize(x.detach(), 4), atol=1e-3) and not torch.allclose(
        y, x, atol=1e-3
    )
    y.backward(weight := torch.randn(3, 8))
    assert torch.allclose(x.grad, weight, atol=1e-2)


def test_steps_are_learned_without_weight_decay():
    prepared = prepare_qat(fresh(), group(2))
    train(prepared, batch, replace(RUN, steps=1, weight_decay=0.5))
    fakes = [m for m in prepared.modules() if isinstance(m, FakeWeight)]
    assert all(0 < m.gain.abs().max() < 0.02 for m in fakes)
    decayed, rest = optimizer(prepared, RUN).param_groups
    assert {id(m.gain) for m in fakes} <= {id(p) for p in rest["params"]}
    assert {id(p) for p in decayed["params"]} == {
        id(m.full)
        for n, m in prepared.named_modules()
        if isinstance(m, FakeWeight) and "embedding" not in n
    }


@pytest.mark.parametrize("value", [-20.0, -0.5, 3.0])
def test_a_step_that_shrinks_or_grows_too_far_is_still_stored_as_it_was_read(value):
    prepared = prepare_qat(fresh(), group(4))
    with torch.no_grad():
        prepared.head.weight.gain.fill_(value)
    assert prepared(ids()).isfinite().all() and torch.equal(
        convert(prepared)(ids()), prepared(ids())
    )


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    whole = prepare_qat(fresh(), group(3))
    train(whole, batch, RUN)

    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            prepare_qat(fresh(), group(3)),
            batch,
            RUN,
            checkpoint=tmp_path / "run.pt",
            every=3,
            on_step=stop,
        )
    resumed = prepare_qat(fresh(), group(3))
    train(resumed, batch, RUN, checkpoint=tmp_path / "run.pt")
    assert torch.equal(convert(resumed)(ids()), convert(whole)(ids()))
    for other in (fresh(), prepare_qat(fresh(), group(4))):
        with pytest.raises(ValueError, match="belongs to another run, with other configuration"):
            train(other, batch, RUN, checkpoint=tmp_path / "run.pt")


def test_training_on_the_grid_beats_rounding_afterwards():
    run = replace(RUN, steps=60, window=8, cooldown=0.5)
    model = fresh()
    train(model, lambda step: batch(0)[:, :9], run)
    control, prepared = copy.deepcopy(model), prepare_qat(model, group(2))

    def loss(m):
        return nn.functional.cross_entropy(
            m(batch(0)[:, :8]).flatten(0, 1), batch(0)[:, 1:9].flatten()
        ).item()

    rounded = loss(prepared) - loss(model)
    for m in (control, prepared):  # the same steps on the same data
        train(m, lambda step: batch(0)[:, :9], replace(run, steps=40))
    assert rounded > 0.1 and loss(prepared) - loss(control) < 0.3 * rounded


def test_a_grid_comes_closer_to_a_model_that_it_learns_from_than_by_its_text():
    """Both read the same text of the teacher's own; the one is told its law of each next token, the
    other one draw from it."""
    teacher, run = fresh(), replace(RUN, steps=80, lr=3e-3, cooldown=1.0)
    with torch.no_grad():
        teacher.head.weight.mul_(10)  # a law with something in it

    @cache
    def drawn(step):
        rng = torch.Generator().manual_seed(step)
        return generate(
            teacher,
            torch.randint(0, 50, (4, 1), generator=rng),
            16,
            sampling=Sampling(),
            generator=rng,
        )

    def apart(m):
        with torch.no_grad():
            return nn.functional.kl_div(
                m(ids()).log_softmax(-1), teacher(ids()).softmax(-1), reduction="sum"
            ).item()

    told, shown = prepare_qat(teacher, group(3)), prepare_qat(teacher, group(3))
    rounded = apart(told)
    train(told, drawn, run, teacher=teacher)
    train(shown, drawn, run)
    assert apart(told) < 0.6 * min(rounded, apart(shown)), (apart(told), rounded, apart(shown))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda m: prepare_qat(m, group(4), method="gptq"),
            "method 'gptq' gives no grid to train on: choose one of rtn, mse",
        ),
        (
            lambda m: prepare_qat(m, group(4, codebook="nf4")),
            "nf4 group 32 cannot be trained: give a scheme of evenly spaced",
        ),
        (lambda m: prepare_qat(quantize(m, group(4)), group(4)), "give the FP32 model"),
        (lambda m: prepare_qat(prepare_qat(m, group(4)), group(4)), "no nn.Linear left"),
        (lambda m: convert(m), "no fake-quantized layer: give the one that prepare_qat returned"),
        (
            lambda m: save(prepare_qat(m, group(4)), "nowhere"),
            "not as the scheme stores it: convert",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(fresh())


def test_a_weight_that_is_no_number_stops_the_run():
    prepared = prepare_qat(fresh(), group(4))
    prepared.head.weight.full.data[0, 0] = float("nan")
    with pytest.raises(
        ValueError, match=r"head\.weight\.full of the model is not finite before the first step"
    ):
        train(prepared, batch, RUN)
