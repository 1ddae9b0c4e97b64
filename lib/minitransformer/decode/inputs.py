"""What a caller may hand to a decoder, and the one line that says what is wrong with it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..cache import KINDS, Cache, make_cache
from ..fields import choice, whole
from .sampling import GREEDY, Generators, Sampling

Ids = Any  # a tensor, an array, or nested sequences, of whole numbers: (B, T) or (T,)

Stop = Sequence[int] | int  # the ids that end a text


def token_ids(ids: Ids, vocab_size: int, device=None) -> torch.Tensor:
    """Token ids as an int64 tensor (B, T), from a tensor, an array or a list of them; (T,) is one
    row. ValueError for text, for anything but whole numbers, and outside the vocabulary."""
    if isinstance(ids, (str, bytes)):
        raise ValueError(
            f"the prompt {ids[:20]!r} is text, and a model reads ids: "
            "give minitransformer.encode(tokenizer, text)"
        )
    try:
        found = ids if isinstance(ids, torch.Tensor) else torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the prompt is no rectangle of token ids ({str(error).splitlines()[0]}): give a "
            "tensor, an array or a list of whole numbers, and rows of unequal length to "
            "generate_batch"
        ) from None
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.numel():
        raise ValueError(
            f"the prompt has shape {tuple(found.shape)}: "
            "give at least one token, as (batch, tokens)"
        )
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"the prompt is of {found.dtype}, and token ids are whole numbers")
    found = found.long()
    low, high = (int(x) for x in found.aminmax())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the vocabulary of {vocab_size}: "
            f"ids go from 0 to {vocab_size - 1}"
        )
    return found


def stop_tokens(stop, vocab_size: int) -> tuple[int, ...]:
    """Stop tokens as a tuple, from one id or several; ValueError for what is no token."""
    several = stop.tolist() if hasattr(stop, "tolist") else stop
    several = several if isinstance(several, (list, tuple, set, frozenset)) else (several,)
    found = tuple(whole("stop", token, 0) for token in several)
    if max(found, default=0) >= vocab_size:
        raise ValueError(
            f"stop {max(found)} is outside the vocabulary of {vocab_size}: ids go from 0 to "
            f"{vocab_size - 1}"
        )
    return found


def checked_generator(generator, rows: int) -> Generators:
    """A generator for all rows, or one a row, of one row its own; ValueError for anything else."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, (list, tuple)):
        if len(generator) != rows:
            raise ValueError(
                f"{len(generator)} generators for {rows} rows: give one for all, or one a row"
            )
        if all(isinstance(each, torch.Generator) for each in generator):
            return generator[0] if rows == 1 else generator
        generator = next(each for each in generator if not isinstance(each, torch.Generator))
    hint = generator if isinstance(generator, int) else 0
    raise ValueError(
        f"generator {generator!r} is no torch.Generator: give torch.Generator().manual_seed({hint})"
    )


def checked_sampling(sampling) -> Sampling:
    """The sampling itself; ValueError for anything else."""
    if not isinstance(sampling, Sampling):
        raise ValueError(f"sampling {sampling!r} is no Sampling: give Sampling(temperature=…)")
    return sampling


@dataclass(frozen=True)
class Job:
    """A request that can be served: its prompt ids (B, T), and all else as decoders need it."""

    ids: torch.Tensor
    new_tokens: int
    cache: Cache | None
    sampling: Sampling
    generator: Generators
    stop: tuple[int, ...]


def device_of(model) -> torch.device | None:
    """Where a model's weights are; None for one that does not say."""
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if parameters else None
    return None if first is None else first.device


def weights_of(model) -> Hashable:
    """A token of a model's weights as they are now: other weights, other token.

    Where each tensor is and how often it was written, and a sum over its bits, which costs about
    as much as reading the weights for one token and sees what was written behind autograd's back.
    A model without buffers, such as the native one, is its own token: its weights stay."""
    if not hasattr(model, "buffers"):
        return model.cfg, model
    tensors = [x.detach() for x in (*model.parameters(), *model.buffers())]
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [x.contiguous().view(integers[x.element_size()]).sum() for x in tensors if x.numel()]
    places = [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors]
    return model.cfg, tuple(places), tuple(torch.stack(sums).tolist() if sums else ())


def prepare(
    model,
    ids: Ids,
    max_new_tokens: int,
    cache: str | Cache | None,
    *,
    sampling: Sampling = GREEDY,
    generator: Generators = None,
    stop: Stop = (),
    resume: bool = False,
    rollback: int = 0,
    alone: str = "",
) -> Job:
    """A generation that can be served to its end, its cache made when `cache` names a kind.

    `resume`: the cache holds the first `cache.pos` tokens of `ids`, one token at least is new.
    `rollback`: how many tokens the decoder may have to take back. `alone`: what a decoder is called
    that takes one prompt at a time. ValueError for a request that cannot be served."""
    ids = token_ids(ids, model.cfg.vocab_size, None if torch.is_tensor(ids) else device_of(model))
    new = whole("max_new_tokens", max_new_tokens)
    rows, tokens = ids.shape
    if alone and rows != 1:
        raise ValueError(f"{alone} continues one prompt, and {rows} were given: call it for each")
    generator = checked_generator(generator, rows)
    stop = stop_tokens(stop, model.cfg.vocab_size)
    if isinstance(cache, str):
        options = {"rollback": rollback} if "rollback" in kind(cache).options else {}
        where = {"device": ids.device, **options}
        cache = make_cache(model.cfg, cache, batch=rows, capacity=tokens + new, **where)
    elif isinstance(cache, Cache):
        cache.fits(model.cfg)
        _usable(cache, ids, tokens + new - 1, resume, rollback)
    elif cache is not None:
        raise ValueError(f"cache {cache!r} is no cache: give a kind, a Cache, or None")
    # A cache that limits the chunk counts positions inside itself: its text may be longer than the
    # context.
    if (cache is None or cache.chunk is None) and tokens + new - 1 > model.cfg.context:
        raise ValueError(
            f"a prompt of {tokens} and {new} new tokens pass context {model.cfg.context}: "
            "shorten one of them"
        )
    return Job(ids, new, cache, checked_sampling(sampling), generator, stop)


def kind(name: str) -> type[Cache]:
    """The cache class of that name; ValueError for none."""
    return KINDS[choice("cache kind", name, KINDS)]


def _usable(cache, ids, fed, resume, rollback):
    """ValueError unless a given cache is empty or its text resumed, and takes `fed` tokens."""
    rows, tokens = ids.shape
    if cache.pos and not resume:
        raise ValueError(
            f"the cache holds {cache.pos} tokens of another text: empty it by cache.truncate(0), "
            "or give resume=True and the whole text, which begins with them"
        )
    if cache.pos >= tokens:
        raise ValueError(
            f"the cache holds {cache.pos} tokens and the text to resume has {tokens}: "
            "give the whole text, with one token at least that the cache has not seen"
        )
    if cache.batch != rows:
        raise ValueError(
            f"a cache of batch {cache.batch} does not fit {rows} prompts: "
            f"make_cache(..., batch={rows})"
        )
    if not getattr(cache, "even", True):
        raise ValueError(
            "the rows of the paged cache are of unequal length: give them to a Scheduler"
        )
    if cache.chunk is None and fed > cache.capacity:
        raise ValueError(
            f"{fed} tokens do not fit a cache of capacity {cache.capacity}: "
            f"make_cache(..., capacity={fed})"
        )
    if cache.rollback is not None and cache.rollback < rollback:
        raise ValueError(
            f"a cache with rollback {cache.rollback} cannot take back {rollback} tokens: "
            f"make_cache(..., rollback={rollback})"
        )
