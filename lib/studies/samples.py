"""What do the models write?"""

import pandas as pd
import torch

from minitransformer.corpus import decode
from minitransformer.decode import Sampling, generate

from .corpus_facts import unit
from .texts import as_row

LENGTHS = {"character": (40, 160)}  # of a prompt and of what follows; of other tokens (8, 24)


def prompts(data) -> list[torch.Tensor]:
    """The first tokens of the test split and of its second half, none chosen by hand."""
    test, given = data.splits["test"], LENGTHS.get(unit(data), (8, 24))[0]
    return [as_row(test[start : start + given]) for start in (0, len(test) // 2)]


def drawn(data, models: dict, sampling: Sampling, draws: int = 2) -> pd.DataFrame:
    """Continuations of the prompts, a row a prompt, model and draw; a slash for a line end."""
    new = LENGTHS.get(unit(data), (8, 24))[1]
    rows = []
    for prompt in prompts(data):
        for name, model in models.items():
            for draw in range(draws):
                seeded = torch.Generator().manual_seed(draw)
                ids = generate(model, prompt, new, sampling=sampling, generator=seeded)
                texts = (prompt[0].numpy(), rest(ids, prompt).numpy())
                rows.append((*(decode(data.tokenizer, own) for own in texts), name, draw))
    table = pd.DataFrame(rows, columns=["prompt", "continuation", "model", "draw"])
    return table.replace(r"\n", " / ", regex=True)


def rest(ids: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """What was generated behind a prompt: (1, T + new) -> (new,)."""
    return ids[0, prompt.shape[1] :]
