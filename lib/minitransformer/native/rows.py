"""Texts side by side over a cache of the engine's own, for decoders that come back between its
steps: what a draft is judged by, and what beams choose from."""

import math
from ctypes import c_double, c_int32

import torch

from ..fields import whole
from .checks import MOST_SEQUENCES, check_length, check_tokens
from .model import NativeModel
from .structs import NOT_FINITE


class Rows:
    """Up to `most` texts of one length, `tokens` at the most, that began as one.

    A text that gets shorter than it was needs no word: what is written later is what is seen."""

    def __init__(self, model: NativeModel, most: int, tokens: int):
        check_length(tokens, model.cfg)
        self.model, self.tokens, self.most = model, tokens, min(most, MOST_SEQUENCES)
        self.seen = model.take_room(self.most, tokens)
        self.store, self.held = self.seen.storage.numpy(), 0
        self.places = [0]  # of each text, its row of the cache
        self.out = torch.empty(0)  # logits that nobody else sees

    def __del__(self):
        if hasattr(self, "seen"):  # the next one of this thread need not make it
            self.model.own().room = self.seen

    def logits(self, texts: list[list[int]], n: int = 1, out=None) -> torch.Tensor:
        """Logits after the last n tokens of texts as lists, (texts * n, V), in `out` if it is
        given: what comes before those is fed where it was not. ValueError for tokens that are none,
        and for more than fit."""
        end = len(texts[0]) if texts else 0
        start = min(self.held, end - n)
        alike = {*map(len, texts)} == {end}
        many = len(texts) != len(self.places) or len(texts) > 1 < end - start
        if end > self.tokens or many or not alike or not 0 <= start < end or n < 1:
            raise ValueError(
                f"{len(texts)} texts of {end} tokens, {end - start} of them new, do not follow "
                f"{len(self.places)} of at most {self.tokens}"
            )
        tokens = [token for text in texts for token in text[start:]]
        check_tokens(tokens, self.model.cfg)
        sequences = [place for place in self.places for _ in range(start, end)]
        positions = [*range(start, end)] * len(texts)
        states, count, cfg = self.model.scratch(len(tokens)), len(texts) * n, self.model.cfg
        self.model.feed(self.seen, tokens, sequences, positions, states)
        out = torch.empty(count, cfg.vocab_size) if out is None else out
        skipped = (len(tokens) - count) * cfg.d_model * states.element_size()
        self.model.multiply(states.data_ptr() + skipped, count, out)
        self.held = end
        return out

    def judged(self, text: torch.Tensor, n: int) -> torch.Tensor:
        """Logits after the last n tokens of one text (1, T): (n, V)."""
        return self.logits(text.tolist(), n)

    def matched(self, text: torch.Tensor, n: int) -> tuple[int, int] | None:
        """Of a text (1, T) how many of the last n - 1 tokens, up to the first that is not, are the
        likeliest where they stand, and which is the likeliest then. None where logits hold no
        choice."""
        texts = text.tolist()
        logits = self.logits(texts, n).numpy()
        chosen, proposed = logits.argmax(1).tolist(), texts[0][len(texts[0]) - n + 1 :]
        if not all(math.isfinite(logits.item(i, token)) for i, token in enumerate(chosen)):
            return None  # the largest is what is no number, if any is
        other = (i for i, token in enumerate(proposed) if token != chosen[i])
        accepted = next(other, n - 1)
        return accepted, chosen[accepted]

    def best(self, texts: list[list[int]], before: list[float], k: int) -> list | None:
        """The k likeliest texts of one token more, or as many as are possible: (log p, row * V +
        token) of each, the best first; `before` is log p of the texts. None where logits hold no
        choice."""
        W, V = len(texts), self.model.cfg.vocab_size
        if len(before) != W:
            raise ValueError(f"{len(before)} log-probabilities of {W} texts: give one for each")
        k = min(whole("k", k), W * V)
        if len(self.out) < W:
            self.out = torch.empty(W, V)
        logits, given = self.logits(texts, out=self.out), (c_double * W)(*before)
        values, places = (c_double * k)(), (c_int32 * k)()
        code = self.model.engine.engine_best(
            *(self.model.reference, logits.data_ptr(), W, given, k, values, places)
        )
        if code == NOT_FINITE:
            return None
        pairs = zip(values, places, strict=True)
        return [pair for pair in pairs if pair[0] > -math.inf]

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
