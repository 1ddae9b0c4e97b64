"""What is packed for a kernel stays where and as it is, whatever the model around it becomes."""

import torch
import torch.nn as nn


class KernelError(RuntimeError):
    """A kernel is missing in this build, does not fit this format, shape or device, or gave a wrong
    answer."""


class Packed(nn.Module):
    """A layer that computes in FP32 from tensors it holds apart, and answers in `dtype`.

    `held` has what a call needs: looking a tensor up through `nn.Module` takes as long as a small
    product, so the buffers are for counting and the tuple is for calling. A change of the model's
    type changes `dtype` only; KernelError for another device."""

    held: tuple
    dtype = torch.float32

    def _apply(self, fn, recurse=True):
        like = fn(torch.empty(0, dtype=self.dtype))
        if like.device.type != "cpu":
            raise KernelError(
                f"{type(self).__name__} is packed for the CPU and cannot be moved to "
                f"{like.device.type}: move the quantized model, and do not accelerate() it"
            )
        self.dtype = like.dtype
        return self

    def answer(self, y):
        """FP32 results in the type of the model."""
        return y if self.dtype is torch.float32 else y.to(self.dtype)
