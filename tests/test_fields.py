"""Configurations take numbers of any library as Python's own, and refuse the rest in one line."""

import json
import math
from dataclasses import asdict, fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.fields import choice, flag, real, whole
from minitransformer.model import ModelConfig
from minitransformer.quant import QuantScheme, computed_bytes, quantize, quantize_structure
from minitransformer.train import GOOD, SEED, TrainConfig, plan
from uneven import ids, uneven

EIGHTS = [
    8,
    8.0,
    np.int64(8),
    np.uint8(8),
    np.float32(8),
    np.array(8),
    torch.tensor(8),
    Decimal(8),
    Fraction(8),
]
NO_NUMBERS = [
    "8",
    b"8",
    None,
    True,
    np.True_,
    8.5,
    math.nan,
    math.inf,
    [8],
    np.array([8]),
    8j,
    object(),
]
CONFIGS = {
    ModelConfig: {"d_model": 8, "n_heads": 2},
    QuantScheme: {"granularity": "group", "group_size": 8, "activation_bits": 8},
    TrainConfig: {},
}


def own(config, kind):
    """Fields of a configuration whose values have this type."""
    made = config(**CONFIGS[config])
    return [f.name for f in fields(config) if type(getattr(made, f.name)) is kind]


INTS = [(config, name) for config in CONFIGS for name in own(config, int)] + [
    (ModelConfig, "n_kv_heads"),
    (ModelConfig, "d_ff"),
    (ModelConfig, "d_head"),
]
REALS = [(config, name) for config in CONFIGS for name in own(config, float)] + [
    (ModelConfig, "norm_eps"),
]
FLAGS = [(config, name) for config in CONFIGS for name in own(config, bool)]
WORDS = [(config, name) for config in CONFIGS for name in own(config, str)]


def test_every_field_is_of_a_checked_kind():
    checked = {pair[1] for kind in (INTS, REALS, FLAGS, WORDS) for pair in kind}
    names = {f.name for config in CONFIGS for f in fields(config)}
    assert names - checked == {"betas", "codebook", "rope_scaling"} and len(INTS) >= 15


def made(config, name, value):
    base = {
        "short_steps": {"short_window": 8},
        "n_heads": {"d_model": 16},
        "n_kv_heads": {"n_heads": 8, "d_model": 16},
    }
    return config(**CONFIGS[config] | base.get(name, {}) | {name: value})


@pytest.mark.parametrize(("config", "name"), INTS, ids=str)
def test_whole_numbers_of_any_library_become_ints(config, name):
    for value in EIGHTS:
        config_of = made(config, name, value)
        assert type(getattr(config_of, name)) is int
        assert config_of == made(config, name, 8) and json.dumps(asdict(config_of))
    for value in NO_NUMBERS:
        if value is None and name in (
            "n_kv_heads",
            "d_ff",
            "d_head",
            "group_size",
            "activation_bits",
        ):
            continue
        with pytest.raises(ValueError, match=rf"^{name} .* is not a whole number: give ") as caught:
            made(config, name, value)
        assert "\n" not in str(caught.value)
    for value in (-1, -5, 2**31, 10**30):
        with pytest.raises(
            ValueError, match=rf"^{name} {value} is not|^{name} {value} is negative"
        ):
            made(config, name, value)


@pytest.mark.parametrize(("config", "name"), REALS, ids=str)
def test_real_numbers_become_floats(config, name):
    whole = 0 if name == "ema" else 1  # a mean that decays by 1 a step would never move
    for value in (whole, 0.5, np.float32(0.5), np.int64(whole), torch.tensor(0.5), Fraction(1, 2)):
        assert type(getattr(made(config, name, value), name)) is float
    for value in (
        "1",
        None,
        True,
        np.True_,
        [1.0],
        np.array([1.0]),
        1j,
        math.nan,
        math.inf,
        -1,
        -math.inf,
    ):
        if value is None and name == "norm_eps":
            continue
        with pytest.raises(ValueError, match=rf"^{name} .*: give ") as caught:
            made(config, name, value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("config", "name"), FLAGS, ids=str)
def test_flags_become_bools(config, name):
    default = getattr(made(config, name, getattr(config(**CONFIGS[config]), name)), name)
    assert type(getattr(made(config, name, np.bool_(default)), name)) is bool
    for value in (1, 0, "True", "", None, 1.0, [], np.array([True])):
        with pytest.raises(ValueError, match=rf"^{name} .* is neither True nor False"):
            made(config, name, value)


@pytest.mark.parametrize(("config", "name"), [*WORDS, (QuantScheme, "codebook")], ids=str)
def test_words_are_known_words(config, name):
    for value in ("ropes", "", 3, True, [], {}, b"rope", np.array(["rope"])):
        with pytest.raises(ValueError, match=rf"^{name} .* is unknown: choose one of "):
            made(config, name, value)


def test_words_of_numpy_become_strs_and_a_close_one_is_named():
    assert type(ModelConfig(position=np.str_("rope")).position) is str
    with pytest.raises(ValueError, match=r"position 'rop' is unknown.*did you mean 'rope'\?"):
        ModelConfig(position="rop")


@given(st.integers(-(2**40), 2**40))
def test_what_is_whole_passes_unchanged_and_in_range_only(n):
    if 1 <= n < 2**31:
        assert whole("n", n) == whole("n", np.int64(n)) == n
    else:
        with pytest.raises(ValueError, match=f"^n {n} is not"):
            whole("n", n)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_real_passes_unchanged_and_in_range_only(x):
    if 0 <= x <= 1:
        assert real("x", x, 0, 1) == real("x", np.float64(x), 0, 1) == x
    else:
        with pytest.raises(ValueError, match="^x .* is out of range: give 0 to 1"):
            real("x", x, 0, 1)


def test_the_words_of_the_remedy():
    for call, message in (
        (lambda: whole("n", 0), "n 0 is not positive: give at least 1"),
        (lambda: whole("n", -1, 0), "n -1 is negative: give at least 0"),
        (lambda: whole("n", 9, 2, 8), "n 9 is not supported: give 2 to 8"),
        (lambda: whole("n", 2**31), "n 2147483648 is not supported: give 1 to 2147483647"),
        (lambda: real("x", 0, above=True), "x 0 is not positive: give a finite number above 0"),
        (lambda: real("x", 2, 0, 1), "x 2 is out of range: give 0 to 1"),
        (lambda: flag("f", 1), "f 1 is neither True nor False: give one of them"),
        (lambda: choice("c", "z", ("a", None)), "c 'z' is unknown: choose one of a, None"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


def test_a_large_width_is_refused_as_quickly_as_a_small_one():
    with pytest.raises(
        ValueError, match="n_heads 3 does not divide d_model 2147483647: the nearest"
    ):
        ModelConfig(d_model=2**31 - 1, n_heads=3)
    with pytest.raises(ValueError, match="n_heads 5 .* d_model 128: the nearest that does is 4"):
        ModelConfig(n_heads=5)


def test_a_scaling_of_rope_is_a_name_and_its_numbers():
    assert ModelConfig(rope_scaling=["linear", 2]).rope_scaling == ("linear", 2.0)
    for bad in (2.0, "linear", ("linear",), ("yarn", 2.0), ("llama3", 8.0), ()):
        with pytest.raises(ValueError, match="rope_scaling .* is unknown: give None, .'linear', f"):
            ModelConfig(rope_scaling=bad)
    for bad in (0, -1, math.nan, "2"):
        with pytest.raises(ValueError, match="rope_scaling linear .* is not|out of range"):
            ModelConfig(rope_scaling=("linear", bad))


def test_a_recipe_is_planned_by_name():
    assert plan("good") == GOOD and plan("seed", steps=5.0) == replace(SEED, steps=5)
    for call, message in (
        (lambda: plan("great"), "recipe 'great' is unknown: choose one of seed, good"),
        (lambda: plan("good", step=3), r"a recipe has no field 'step' .did you mean 'steps'"),
        (lambda: plan("good", lr=-1), "lr -1 is not positive: give a finite number above 0"),
        (lambda: plan("good", steps=-5), "steps -5 is not positive: give at least 1"),
        (lambda: plan("good", window=8), "short_window 16 does not fit window 8: give 1 to 8"),
        (lambda: plan("good", betas=0.9), "betas 0.9 are not two numbers"),
        (lambda: plan("good", betas=(0.9, 1)), "betas .* reach 1, and nothing would move"),
        (lambda: plan("good", betas=(0.9, math.nan)), "betas.1. nan is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert plan("good", betas=[np.float64(0.5), 0]).betas == (0.5, 0.0)


def test_bits_alone_are_a_scheme():
    model, eight = uneven(), QuantScheme(4)
    for bits in (4, 4.0, np.int64(4)):
        small = quantize(model, bits)
        assert small.scheme == eight
        assert torch.equal(small(ids()), quantize(model, eight)(ids()))
        assert computed_bytes(model.cfg, bits) == computed_bytes(model.cfg, eight)
    assert quantize_structure(model, 4).scheme == eight
    for scheme in ("int4", None, 4.5, True, [4], {"bits": 4}, QuantScheme, 1, 9, math.nan):
        with pytest.raises(ValueError) as caught:
            quantize(model, scheme)
        assert "scheme" in str(caught.value) and "\n" not in str(caught.value)
