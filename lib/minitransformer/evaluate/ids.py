"""What every function here that takes token ids accepts: one row of whole numbers within a
vocabulary."""

import numpy as np


def as_ids(ids, vocab_size: int | None = None) -> np.ndarray:
    """ids as int64 (N,): a list, an array or a tensor on any device, (N,) or (1, N) as `generate`
    returns it.

    ValueError when there are several rows, numbers that are not whole, or ids outside
    0 ... vocab_size - 1."""
    if hasattr(ids, "detach"):
        ids = ids.detach().cpu()
    try:
        array = np.asarray(ids)
    except ValueError:
        raise ValueError("ids are rows of different lengths: give one row at a time") from None
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"ids of shape {array.shape} and type {array.dtype} are no row of token ids: give whole"
            " numbers, (N,), such as encode(tokenizer, text)"
        )
    array = np.ascontiguousarray(array, dtype=np.int64)
    below = "" if vocab_size is None else f" with vocab_size {vocab_size}"
    over = vocab_size is not None and array.size and array.max() >= vocab_size
    if array.size and (array.min() < 0 or over):
        raise ValueError(
            f"ids span {array.min()} to {array.max()}{below}: give ids of the tokenizer that the"
            " model was made with"
        )
    return array
