"""Texts side by side over a cache of the engine's own, for decoders that come back between its
steps: what a draft is judged by, and what beams choose from."""

import torch

from .checks import MOST_SEQUENCES, check_length, check_tokens
from .model import NativeModel


class Rows:
    """Up to `most` texts of one length, `tokens` at the most, that began as one.

    A text that gets shorter than it was needs no word: what is written later is what is seen."""

    def __init__(self, model: NativeModel, most: int, tokens: int):
        check_length(tokens, model.cfg)
        self.model, self.tokens, self.most = model, tokens, min(most, MOST_SEQUENCES)
        self.seen = model.new_room(self.most, tokens)
        self.store, self.held = self.seen.storage.numpy(), 0
        self.places = [0]  # of each text, its row of the cache

    def logits(self, texts: list[list[int]], n: int = 1) -> torch.Tensor:
        """Logits after the last n tokens of texts as lists, (texts * n, V): what comes before those
        is fed where it was not. ValueError for tokens that are none, and for more than fit."""
        start, end = min(self.held, len(texts[0]) - n), len(texts[0])
        if end > self.tokens or len(texts) != len(self.places) or len(texts) > 1 < end - start:
            raise ValueError(
                f"{len(texts)} texts of {end} tokens, {end - start} of them new, do not follow "
                f"{len(self.places)} of at most {self.tokens}"
            )
        tokens = [token for text in texts for token in text[start:]]
        check_tokens(tokens, self.model.cfg)
        sequences = [place for place in self.places for _ in range(start, end)]
        positions = [*range(start, end)] * len(texts)
        states, C = self.model.scratch(len(tokens)), self.model.cfg.d_model
        self.model.feed(self.seen, tokens, sequences, positions, states)
        out = torch.empty(len(texts) * n, self.model.cfg.vocab_size)
        skipped = (len(tokens) - len(out)) * C * states.element_size()
        self.model.multiply(states.data_ptr() + skipped, len(out), out)
        self.held = end
        return out

    def judged(self, text: torch.Tensor, n: int) -> torch.Tensor:
        """Logits after the last n tokens of one text (1, T): (n, V)."""
        return self.logits(text.tolist(), n)

    def select(self, rows: list[int]) -> None:
        """Keep these texts, in this order, repeats allowed: the first of a text stays where it
        lies, the others are copies. ValueError for more than there is room for."""
        if len(rows) > self.most:
            raise ValueError(f"{len(rows)} texts side by side: the engine takes {self.most}")
        kept = [self.places[row] for row in rows]
        stay = set(kept)
        free = [place for place in range(self.most) if place not in stay]
        for i, place in enumerate(kept):
            if place in stay:
                stay.remove(place)
            else:
                kept[i] = free.pop()
                written = self.store[:, :, place, :, : self.held]
                self.store[:, :, kept[i], :, : self.held] = written
        self.places = kept
