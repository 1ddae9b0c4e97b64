"""What proposes tokens to speculative decoding: a smaller model, or the text itself."""

import torch

from ..cache import make_cache
from ..fields import whole
from .backends import on_backend
from .generation import prefill
from .inputs import kind


class ModelDraft:
    """A smaller or quantized model of the same vocabulary as the draft, over a cache of any kind,
    on a `backend` as in `stream`.

    The cache survives between proposals: each rolls it back to what the text still has in common
    with it, or empties it where it cannot go back so far."""

    def __init__(self, model, cache: str = "static", backend: str = "eager"):
        self.vocab_size = model.cfg.vocab_size
        options = {"rollback": 8} if "rollback" in kind(cache).options else {}  # a usual gamma
        self.cache = make_cache(model.cfg, cache, **options)
        self.model = on_backend(model, backend, self.cache)
        self.fed: torch.Tensor | None = None  # begins with what the cache holds

    def propose(self, ids: torch.Tensor, gamma: int, rule):
        """Up to gamma tokens after ids (1, T), fewer near the draft's own context: (1, g), and
        their laws q (g, V) or None."""
        start = ids.shape[1]
        laws: list[torch.Tensor | None] = []
        if self.fed is not None:
            known = min(start - 1, self.cache.pos)  # at least one token is fed, for its logits
            same = int((ids[:, :known] == self.fed[:, :known]).cumprod(dim=1).sum())
            try:
                self.cache.truncate(same)
            except ValueError:  # it has evicted or rounded what would come back
                self.cache.truncate(0)
        for _ in range(min(gamma, self.model.cfg.context - start + 1)):
            self.fed = ids  # said before it is so: the forward may be interrupted
            token, q = rule.draw(prefill(self.model, ids[:, self.cache.pos :], self.cache), ids)
            ids, laws = torch.cat((ids, token), dim=1), [*laws, q]
        return ids[:, start:], torch.cat(laws) if laws and laws[0] is not None else None


class PromptLookup:
    """The text as its own draft: what followed the last `ngram` tokens (or fewer) where they stood
    before.

    Saxena 2023. Of several places the latest that is followed by gamma tokens is copied, else the
    first. q is one-hot."""

    vocab_size = None

    def __init__(self, ngram: int = 3):
        self.ngram = whole("ngram", ngram)

    def propose(self, ids: torch.Tensor, gamma: int, rule=None):
        """Up to gamma tokens copied from ids (1, T), none where nothing repeats: (1, g), and None
        for certain."""
        text = "".join(map(chr, ids[0].tolist()))  # strings search themselves faster than tensors
        for n in range(min(self.ngram, len(text) - 1), 0, -1):
            last = text[-n:]
            at = max(text.rfind(last, 0, len(text) - gamma), text.find(last, 0, -1))
            if at >= 0:
                return ids[:, at + n : at + n + gamma], None
        return ids[:, :0], None
