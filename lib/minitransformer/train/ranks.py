"""What the loop asks of the processes that share a run, answered by one that is alone."""

import torch


class Alone:
    """A run of one process: the whole batch and the whole model are here.

    `distributed` has the runs of several. Every method that talks to the others is called by all
    of them, in the same order."""

    rank, size = 0, 1

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    def check(self, model, cfg) -> None:
        """ValueError for a model or recipe that cannot be shared in this way."""

    def same(self, about: dict[str, str]) -> None:
        """ValueError, which names what, unless all processes have been given the same."""

    def wrap(self, model):
        """What is called in place of the model, so that gradients come out as those of all."""
        return model

    def share(self, ids: torch.Tensor) -> torch.Tensor:
        """This process's rows of the batch of a step: (B, T) -> (rows, T)."""
        return ids

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a number over all processes."""
        return value

    def agreed(self, fault: str | None) -> str | None:
        """The fault that this process found, or that another one did; None where nobody found any:
        so that all stop, or none."""
        return fault

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor whole, where each process holds a part of it."""
        return tensor

    def scattered(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The inverse: laid out over the processes as `like` is."""
        return tensor


def mapped(value, change):
    """A tree of dicts and lists with every tensor replaced by `change(tensor)`."""
    if isinstance(value, dict):
        return {key: mapped(own, change) for key, own in value.items()}
    if isinstance(value, list):
        return [mapped(own, change) for own in value]
    return change(value) if torch.is_tensor(value) else value
