"""What beams choose from and drafts are judged by in the engine, against PyTorch."""

import math
from copy import deepcopy
from ctypes import byref, c_double, c_int32

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.decode import Sampling, beam, generate, speculate
from minitransformer.model import ModelConfig
from minitransformer.native import NativeModel, Rows, library
from minitransformer.native.structs import NOT_FINITE, Model
from native_models import CONFIGS, FORCES, even_rope, ids_of, model_of, needs_compiler

pytestmark = needs_compiler
CFG = ModelConfig(vocab_size=33, d_model=32, n_layers=2, n_kv_heads=2, context=96)
NEW = 20


def best(force, logits, before, k):
    """The engine's answer, and the pairs (log p, index) that it gives."""
    values, places = (c_double * k)(), (c_int32 * k)()
    given = (c_double * len(before))(*before)
    where = logits.data_ptr(), len(before), given, k, values, places
    code = library(force).engine_best(byref(Model(vocab=logits.shape[1])), *where)
    return code, [pair for pair in zip(values, places, strict=True) if pair[0] > -math.inf]


def in_torch(logits, before):
    """All candidates in order, equal ones by index: log p and index of those that are possible."""
    before = torch.tensor(before, dtype=torch.float64)
    every = (before[:, None] + logits.log_softmax(-1, dtype=torch.float64)).flatten()
    value, index = every.sort(descending=True, stable=True)
    possible = int((value > -math.inf).sum())
    return value[:possible].tolist(), index[:possible].tolist()


@st.composite
def searches(draw):
    """Logits (W, V) with masked tokens and ties, log p of the texts before, and k."""
    W, V = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 7, 8, 33, 200]))
    numbers = st.sampled_from([-math.inf, -3.0, 0.0, 2.5]) | st.floats(-90, 90, width=32)
    row = st.lists(numbers, min_size=V, max_size=V).filter(lambda x: max(x) > -math.inf)
    before = st.lists(st.floats(-90, 0), min_size=W, max_size=W)
    logits = torch.tensor(draw(st.lists(row, min_size=W, max_size=W)))
    return logits, draw(before), draw(st.integers(1, W * V + 2))


@settings(max_examples=150, deadline=None)
@given(searches(), st.sampled_from(FORCES))
def test_the_best_continuations_are_those_of_a_sort(search, force):
    logits, before, k = search
    code, found = best(force, logits, before, k)
    values, order = in_torch(logits, before)
    exact = dict(zip(order, values, strict=True))
    assert code == 0 and len(found) == min(k, len(values)) == len({i for _, i in found})
    assert [v for v, _ in found] == pytest.approx(values[:k], abs=2e-6)
    assert all(abs(exact[i] - value) < 2e-6 for value, i in found)
    for r in range(len(before)):  # near ties of two rows aside, the order is the same
        own = [i for _, i in found if i // logits.shape[1] == r]
        assert own == [i for i in order if i // logits.shape[1] == r][: len(own)]


@pytest.mark.parametrize("force", FORCES)
def test_of_equal_continuations_the_first_are_the_best(force):
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0]] * 3)
    found = best(force, logits, [-1.0, -1.0, -1.0], 5)[1]
    assert [i for _, i in found] == [1, 2, 5, 6, 9]


@pytest.mark.parametrize("force", FORCES)
@pytest.mark.parametrize("V", [1, 5, 40])
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_rows_without_a_distribution_are_an_error(force, V, wrong):
    for place in range(V):
        logits = torch.zeros(2, V)
        logits[1, place if wrong != "-inf" else slice(None)] = float(wrong)
        assert best(force, logits, [0.0, 0.0], 3)[0] == NOT_FINITE


@settings(max_examples=20, deadline=None)
@given(CONFIGS, st.integers(1, 5), st.integers(0, 99))
def test_beams_are_the_same_whether_anyone_looks_on(cfg, width, seed):
    """With `on_step` the candidates are a tensor of PyTorch's."""
    if not even_rope(cfg):
        return
    packed, ids, seen = NativeModel(model_of(cfg)), ids_of(cfg, 1, 5, seed), []
    options = {"width": width, "backend": "native", "stop": (3,)}
    blind = beam(packed, ids, NEW, **options)
    told = beam(packed, ids, NEW, on_step=lambda *a: seen.append(a), **options)
    assert [b.ids.tolist() for b in blind] == [b.ids.tolist() for b in told] and seen
    for one, other in zip(blind, told, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)


def test_a_text_matches_up_to_what_the_model_would_not_say():
    packed, ids = NativeModel(model_of(CFG)), ids_of(CFG, 1, 6)
    text = generate(packed, ids, 9, backend="native")
    for right in range(8):
        wrong = text.clone()
        wrong[0, 6 + right] = (wrong[0, 6 + right] + 1) % CFG.vocab_size
        rows = Rows(packed, 1, 20)
        accepted, token = rows.matched(wrong[:, :14], 9)
        assert accepted == right and token == int(text[0, 6 + right])
        accepted, token = rows.matched(text[:, :14], 8 - right)  # again, from where they part
        assert accepted == 7 - right and token == int(text[0, 14])


class Twos:
    vocab_size = None

    def propose(self, ids, gamma, rule):
        return torch.full((1, gamma), 2), None


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_logits_that_hold_no_choice_are_told_as_in_pytorch(value):
    model = deepcopy(model_of(CFG))
    model.head.bias.data[slice(None) if value == "-inf" else 7] = float(value)
    for decode in (
        lambda backend: beam(model, ids_of(CFG, 1, 4), NEW, backend=backend),
        lambda backend: speculate(model, Twos(), ids_of(CFG, 1, 4), NEW, backend=backend),
        lambda backend: speculate(
            *(model, Twos(), ids_of(CFG, 1, 4), NEW), sampling=Sampling(1.0), backend=backend
        ),
    ):
        told = []
        for backend in ("eager", "native"):
            with pytest.raises(ValueError, match="after 4 tokens") as error:
                decode(backend)
            told.append(str(error.value))
        assert told[0] == told[1]


def test_texts_that_do_not_fit_are_refused_and_change_nothing():
    packed = NativeModel(model_of(CFG))
    rows, text = Rows(packed, 2, 20), [3, 1, 4, 1, 5]
    before = rows.logits([text])
    for texts, n in (
        *(([text], 0), ([text], -1), ([text], 6), ([[]], 1), ([[1] * 21], 1)),
        *(([text, text], 1), ([[*text, 33]], 1), ([[*text, -1]], 1)),
    ):
        with pytest.raises(ValueError):
            rows.logits(texts, n)
        with pytest.raises(ValueError):
            rows.matched(torch.tensor(texts, dtype=torch.long), n)
    for texts, p, k in (
        *(([text], [0.0], 0), ([text], [0.0], 1.5), ([text], [], 2), ([text], [0.0] * 2, 2)),
        *(([text, text], [0.0] * 2, 2), ([[1] * 21], [0.0], 2)),
    ):
        with pytest.raises(ValueError):
            rows.best(texts, p, k)
    rows.select([0, 0])
    with pytest.raises(ValueError, match="do not follow 2"):
        rows.logits([[*text, 1], [*text, 1, 2]])
    rows.select([1])
    torch.testing.assert_close(rows.logits([text]), before, rtol=1e-4, atol=1e-4)


def test_memory_goes_to_the_next_rows_and_is_never_two_owners():
    packed = NativeModel(model_of(CFG))
    first, second = Rows(packed, 2, 20), Rows(packed, 1, 20)
    mine, other = first.seen, second.seen
    assert mine is not other and packed.room(1, 4) not in (mine, other)
    before = second.logits([[3, 1, 4]]).clone()
    del first
    third = Rows(packed, 2, 20)
    assert third.seen is mine
    third.logits([[9, 8, 7, 6]])
    second.held = 0
    assert torch.equal(second.logits([[3, 1, 4]]), before)
