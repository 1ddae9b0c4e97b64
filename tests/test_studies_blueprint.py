"""The parts of the model add up to the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer import ModelConfig, Transformer
from minitransformer.bench import parameters
from studies import blueprint

CONFIGS = st.builds(
    ModelConfig,
    vocab_size=st.sampled_from([11, 1004]),
    d_model=st.sampled_from([32, 64]),
    n_layers=st.integers(1, 3),
    n_heads=st.sampled_from([2, 4]),
    n_kv_heads=st.sampled_from([None, 1, 2]),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    ffn=st.sampled_from(["relu", "swiglu"]),
    bias=st.booleans(),
    tied=st.booleans(),
)


@given(CONFIGS)
def test_the_parts_add_up(cfg):
    parts = blueprint.parts(cfg)
    times = parts["group"].map({"": 1, "block": cfg.n_layers})
    assert int((parts["parameters"] * times).sum()) == sum(parameters(cfg).values())


def test_the_parts_are_those_of_the_original_and_shapes_are_real():
    cfg = ModelConfig()
    parts = blueprint.parts(cfg).set_index("part")
    assert (
        parts.loc["head", "parameters"] == 129_516 and parts.loc["head", "leaves"] == "B, T, 1,004"
    )
    assert parts.loc["attention", "does"] == "4 heads of 32"
    assert parts.loc["feed-forward", "does"] == "128 → 512 → 128, ReLU"
    assert blueprint.blocks(cfg) == "one block; rotary positions on queries and keys"
    assert blueprint.cached(cfg) == "cache: K and V, each B, 4, S, 32"
    assert sum(p.numel() for p in Transformer(cfg).parameters()) == 456_556


@pytest.mark.parametrize(
    "options, part, words",
    [
        ({"n_kv_heads": 1}, "attention", "4 heads of 32, 1 of K and V"),
        ({"tied": True}, "head", "128 → 1,004, tied to the embedding"),
        ({"ffn": "swiglu"}, "feed-forward", "128 → 352 → 128, SwiGLU"),
    ],
)
def test_variants_are_told(options, part, words):
    cfg = ModelConfig(**options)
    assert blueprint.parts(cfg).set_index("part").loc[part, "does"] == words
    assert blueprint.blocks(ModelConfig(n_layers=3)).startswith("3 blocks like this one")
