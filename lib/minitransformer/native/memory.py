"""Memory for what is read from end to end at every step, in pages as large as the system gives.

A page of 4 KiB is looked up, and fetched ahead within, on its own; and where a thousand of them
happen to lie decides which fall on one place of a cache, so that the same model was up to a tenth
slower in one process than in another. Pages of 2 MiB hold a small model in one (Linux; elsewhere
memory comes as it comes)."""

import mmap
from contextlib import suppress

import torch

LINE, PAGE = 64, 2**21  # bytes of a line of a cache, and of a large page
REGION = 2**26  # bytes of addresses that are taken at once: they cost nothing until they are used


class Memory:
    """Copies of tensors side by side; it lives as long as one of them."""

    def __init__(self):
        self.rest = torch.empty(0, dtype=torch.uint8)

    def hold(self, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous copy, from the start of a line on."""
        size = -(-tensor.nbytes // LINE) * LINE
        if size > len(self.rest):
            self.rest = region(size)
        part, self.rest = self.rest[: tensor.nbytes], self.rest[size:]
        return part.view(tensor.dtype).view(tensor.shape).copy_(tensor)


def region(size: int) -> torch.Tensor:
    """At least so many bytes, (n,) uint8."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    size = max(size, REGION)
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % PAGE
    return whole[start : start + size]
