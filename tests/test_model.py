"""The forward pass: shapes, causality, positions, grouped heads, and the errors of a
configuration."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer, position_table, rotate

SMALL = ModelConfig(vocab_size=50, d_model=32, n_heads=4, context=24)


def make(cfg, seed=0):
    torch.manual_seed(seed)
    return Transformer(cfg).eval()


@pytest.mark.parametrize(
    ("d_model", "parameters"), [(64, 179_628), (128, 456_556), (256, 1_305_324)]
)
def test_the_seed_reports_model_has_more_parameters_than_it_said(d_model, parameters):
    assert (
        sum(p.numel() for p in Transformer(ModelConfig(d_model=d_model)).parameters()) == parameters
    )


configs = st.builds(
    ModelConfig,
    vocab_size=st.just(50),
    d_model=st.just(32),
    n_layers=st.integers(1, 2),
    n_heads=st.just(4),
    n_kv_heads=st.sampled_from([None, 1, 2]),
    context=st.just(24),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    ffn=st.sampled_from(["relu", "gelu", "relu2", "swiglu"]),
    bias=st.booleans(),
    tied=st.booleans(),
    qk_norm=st.booleans(),
    smeared_keys=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(configs)
def test_logits_have_the_vocabulary_and_no_token_sees_the_future(cfg):
    model, ids = make(cfg), torch.arange(20).view(2, 10)
    changed = ids.clone()
    changed[:, 6:] += 20
    with torch.no_grad():
        a, b = model(ids), model(changed)
    assert a.shape == (2, 10, 50)
    torch.testing.assert_close(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6:], b[:, 6:])


def test_without_positions_the_order_of_the_past_does_not_matter_and_with_rope_it_does():
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    swapped = torch.tensor([[3, 2, 1, 4, 5]])
    for position, same in (("none", True), ("rope", False), ("sinusoidal", False)):
        model = make(replace(SMALL, position=position))
        with torch.no_grad():
            assert torch.allclose(model(ids)[:, -1], model(swapped)[:, -1], atol=1e-5) == same


def test_rope_depends_on_distance_only():
    model = make(SMALL).double()
    q, k = (
        torch.randn(1, 1, 4, 8, dtype=torch.float64),
        torch.randn(1, 1, 4, 8, dtype=torch.float64),
    )
    from minitransformer.model import rotate

    table = position_table(SMALL).double()
    near = [rotate(x, *table[:4].chunk(2, -1)) for x in (q, k)]
    far = [rotate(x, *table[10:14].chunk(2, -1)) for x in (q, k)]
    torch.testing.assert_close(near[0] @ near[1].mT, far[0] @ far[1].mT, atol=1e-6, rtol=0)
    assert model.table.shape == (24, 8)


def test_grouped_heads_equal_full_heads_with_repeated_keys_and_values():
    grouped, full = make(replace(SMALL, n_kv_heads=2)), make(SMALL)
    state = grouped.state_dict()
    for name in ("k.weight", "v.weight", "k.bias", "v.bias"):
        key = f"blocks.0.attention.{name}"
        state[key] = state[key].unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(grouped(ids), full(ids))


def test_weights_do_not_depend_on_the_context():
    model = make(SMALL)
    longer = Transformer(replace(SMALL, context=100))
    longer.load_state_dict(model.state_dict())
    ids = torch.arange(24).view(1, 24)
    with torch.no_grad():
        torch.testing.assert_close(longer(ids), model(ids))
    assert longer.eval()(torch.zeros(1, 100, dtype=torch.long)).shape == (1, 100, 50)


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ValueError, match="25 tokens are longer than context 24"):
        make(SMALL)(torch.zeros(1, 25, dtype=torch.long))


def test_swiglu_width_and_given_width():
    assert ModelConfig(ffn="swiglu").ffn_dim == 352
    assert ModelConfig().ffn_dim == 512
    assert ModelConfig(d_ff=100).ffn_dim == 100


def test_a_tied_head_is_the_embedding():
    model = make(replace(SMALL, tied=True))
    assert model.head.weight is model.embedding.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, "n_heads 5 does not divide d_model 32: the nearest that does is 4"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4"),
        ({"d_model": 0}, "d_model 0 is not positive"),
        ({"d_ff": 0}, "d_ff 0 is not positive"),
        (
            {"position": "alibi"},
            "position 'alibi' is unknown: choose one of rope, sinusoidal, none",
        ),
        ({"norm": "batch"}, "norm 'batch' is unknown"),
        ({"ffn": "tanh"}, "ffn 'tanh' is unknown"),
        ({"n_heads": 32}, "head dim 1 is odd"),
        ({"d_model": 33, "n_heads": 1, "position": "sinusoidal"}, "d_model 33 is odd"),
    ],
)
def test_an_impossible_configuration_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("position", ["rope", "sinusoidal", "none"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_smeared_keys_are_those_of_the_definition(position, qk_norm):
    """Mixed before they are rotated, channel by channel: the odd pairs are the token before's."""
    cfg = replace(SMALL, position=position, qk_norm=qk_norm, smeared_keys=True, n_kv_heads=2)
    model = make(cfg).double()
    own, ids = model.blocks[0].attention, torch.arange(10)[None]
    x, rope = model.embed(ids, torch.arange(10), 10)
    key = own.k_norm(own.k(x).view(1, 10, 2, cfg.head_dim)).transpose(1, 2)
    mixed, half = key.clone(), cfg.head_dim // 2
    for i in range(1, half, 2):
        for channel in (i, i + half):
            mixed[:, :, 1:, channel] = key[:, :, :-1, channel]
            mixed[:, :, 0, channel] = 0
    want = rotate(mixed, *rope) if rope else mixed
    torch.testing.assert_close(own.smear(own.project(x, rope)[1]), want, atol=1e-6, rtol=0)
    with torch.no_grad():
        plain = make(replace(cfg, smeared_keys=False)).double()
        assert plain.state_dict().keys() == model.state_dict().keys()
        plain.load_state_dict(model.state_dict())
        assert not torch.allclose(plain(ids), model(ids), atol=1e-3)


def test_smeared_keys_need_pairs():
    with pytest.raises(ValueError, match="head dim 3 is odd, and smeared keys mix pairs: give an"):
        ModelConfig(d_model=12, n_heads=4, position="none", smeared_keys=True)
