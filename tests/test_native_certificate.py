"""The greedy certificate of the engine in every format: a thousand tokens and more of each of three
seeds, sampled so that they do not loop, fed one by one against one eager forward over them all."""

from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, assume, given, seed, settings
from hypothesis import strategies as st

from minitransformer.cache import make_cache
from minitransformer.decode import Sampling
from minitransformer.decode.verdict import judged
from minitransformer.native import NativeModel, generate
from minitransformer.quant import quantize
from native_models import (
    CONFIGS,
    ROUNDED,
    WEIGHT_ONLY,
    even_rope,
    ids_of,
    model_of,
    needs_compiler,
)

pytestmark = needs_compiler
FORMATS = [None, *WEIGHT_ONLY, *ROUNDED]
SEEDS, TEXTS = 3, 11  # texts of a seed, each as long as the context of `CONFIGS`
AT_ONCE = (1, SEEDS, SEEDS * TEXTS)  # rows of a step


def sampled(engine):
    """Texts (33, context), eleven of each seed, drawn so warm that a tied head, which favours the
    token that it is fed, does not repeat it."""
    draws = [torch.Generator().manual_seed(100 * s + t) for s in range(SEEDS) for t in range(TEXTS)]
    starts = ids_of(engine.cfg, len(draws), 1)
    new = engine.cfg.context - 1
    warm = Sampling(max(1.0, float(engine(starts).abs().max())))
    return generate(engine, starts, new, sampling=warm, generator=draws)


def loops(text) -> bool:
    """Whether the second half of a text repeats itself with any period."""
    half = text[len(text) // 2 :]
    return any(torch.equal(half[p:], half[:-p]) for p in range(1, len(half) - 8))


def one_by_one(engine, ids, rows: int):
    """Logits after every token of ids (B, T), each fed alone, beside those of `rows` texts."""
    found = []
    for texts in ids.split(rows):
        cache = make_cache(engine.cfg, "static", len(texts), ids.shape[1])
        found.append(torch.cat([engine(token, cache) for token in texts.split(1, dim=1)], 1))
    return torch.cat(found)


@torch.no_grad()
def certify(cfg, scheme, rows):
    """Where activations are rounded, one beside a step's middle may fall to its other side: that
    moves logits by less, and changes fewer choices, than rounding all of them does."""
    model = model_of(cfg) if scheme is None else quantize(model_of(cfg), scheme)
    engine = NativeModel(model)
    ids = sampled(engine)
    assert ids.numel() >= SEEDS * 1000 and not any(map(loops, ids))
    native, eager = one_by_one(engine, ids, rows), model(ids)
    tolerance, changed = 1e-4 * float(eager.abs().max()), 0
    if scheme in ROUNDED:
        exact = quantize(model_of(cfg), replace(scheme, activation_bits=None))(ids)
        tolerance = max(tolerance, float((eager - exact).abs().max()))
        changed = int((eager.argmax(-1) != exact.argmax(-1)).sum())
    runs = zip(eager, native.argmax(-1), (native - eager).abs().amax(-1), strict=True)
    found = judged(runs, "native", tolerance, eager.dtype)
    assert found.passed and found.steps == ids.numel()
    assert len(found.mismatches) <= changed + found.steps // 1000


@pytest.mark.parametrize("place", range(len(FORMATS)), ids=lambda place: str(FORMATS[place]))
def test_every_greedy_choice_is_the_models(place):
    """Each format has configurations of its own, drawn as those of the property tests are."""

    @seed(place)
    @settings(max_examples=3, phases=[Phase.generate])
    @given(cfg=CONFIGS, rows=st.sampled_from(AT_ONCE))
    def certified(cfg, rows):
        assume(even_rope(cfg))
        certify(cfg, FORMATS[place], rows)

    certified()
