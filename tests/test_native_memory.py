"""Weights that the engine reads: copies side by side, a small model's in one large page."""

import mmap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import memory
from minitransformer.native.memory import LINE, PAGE, REGION, Memory
from minitransformer.native.pack import Held, whole

TYPES = (torch.float32, torch.int32, torch.uint8, torch.int8)
large = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="no large pages here")


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.sampled_from(TYPES))))
def test_copies_are_equal_apart_and_begin_lines(shapes):
    own, kept = Memory(), []
    for rows, columns, dtype in shapes:
        tensor = torch.randint(0, 100, (columns, rows)).to(dtype).T
        kept.append((tensor, own.hold(tensor)))
    del own
    for tensor, copy in kept:
        assert torch.equal(copy, tensor) and copy.is_contiguous() and copy.dtype == tensor.dtype
        assert not tensor.numel() or copy.data_ptr() % LINE == 0
    for tensor, copy in kept:  # none lies over another
        copy.zero_()
        tensor.zero_()
        assert all(torch.equal(other, one) for one, other in kept)


@pytest.mark.parametrize("without", ["the name", "the kernel"])
def test_large_pages_are_a_wish(monkeypatch, without):
    if without == "the name":
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    else:
        monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1, raising=False)  # madvise refuses it
    assert Memory().hold(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]


@large
def test_what_is_larger_than_a_region_has_its_own(monkeypatch):
    monkeypatch.setattr(memory, "REGION", PAGE)
    own = Memory()
    parts = [own.hold(torch.full((n,), i)) for i, n in enumerate((10, PAGE, 10))]
    assert [part.unique().tolist() for part in parts] == [[0], [1], [2]]
    assert len(memory.region(1)) == PAGE < REGION


@large
def test_a_small_model_lies_in_one_page():
    held = Held()
    whole(Transformer(ModelConfig()), held)
    ends = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in held.tensors]
    assert {end // PAGE for pair in ends for end in pair} == {ends[0][0] // PAGE}
