"""The Python face of the engine: a model that decodes in C, a drop-in where one is evaluated.

Everything is checked here, in Python, before the engine touches a pointer."""

import threading
from array import array
from copy import copy
from ctypes import byref
from weakref import WeakKeyDictionary

import torch

from ..cache import Cache, PagedCache
from .build import library
from .checks import (
    check_ids,
    check_length,
    check_model,
    check_rows,
    integers,
    raised,
)
from .pack import Held, whole
from .structs import Model
from .threads import shared
from .views import View, view

KEPT_ROWS = 64  # states of so many rows are kept between calls


class NativeModel:
    """What `load` or `quantize` returns, in the engine's layout: ids (B, T) -> logits (B, T, V).

    Weights run in their own format: FP32, codes of 5 to 8 bits as bytes, of 2 to 4 bits as
    nibbles, a codebook as nibbles and a table. Activations are rounded where the scheme says so,
    and then meet codes as integers. `force` "portable" is the same engine without intrinsics,
    "avx2" one that uses no more than AVX2.
    They are copied as they are now: change them, and make another. Products and attention are
    shared by `threads`: so many, or by default as many as PyTorch uses, and one where a second was
    measured not to pay. The numbers are the same, to the bit. BuildError where there is no C
    compiler; ValueError for a model that the engine does not know."""

    def __init__(self, model, *, force: str | None = None, threads: int | None = None):
        check_model(model)
        self.cfg = model.cfg
        self.scheme = getattr(model, "scheme", None)
        self.variant = force or "native"
        self.engine = library(self.variant)
        self.held, self.local = Held(self.engine.engine_side()), threading.local()
        self.struct = whole(model, self.held)
        self.struct.threads, self.struct.grain = shared(threads, self.variant)
        self.reference, self.head_reference = byref(self.struct), byref(self.struct.head)

    def with_threads(self, threads: int | None) -> "NativeModel":
        """The same weights, held once, shared by so many threads, None as when it was made.
        ValueError for no such number."""
        other = copy(self)
        other.whole, other.local = self, threading.local()  # its blocks lie in this one's structure
        other.struct = Model.from_buffer_copy(self.struct)
        other.struct.threads, other.struct.grain = shared(threads, self.variant)
        other.reference, other.head_reference = byref(other.struct), byref(other.struct.head)
        return other

    @property
    def threads(self) -> int:
        """How many threads share work that is large enough."""
        return self.struct.threads

    @property
    def nbytes(self) -> int:
        """Bytes held in the engine's layout, zeros that fill panels included."""
        return self.held.nbytes

    def parameters(self):
        """The tensors held, floats first: callers ask the first for its type and device."""
        return iter(sorted(self.held.tensors, key=lambda t: not t.is_floating_point()))

    def eval(self):
        return self

    def __call__(self, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Logits of the next token at every position: (B, T) -> (B, T, V)."""
        return self._forward(ids, cache, self._logits)

    def hidden(self, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Final-normed states: (B, T) integer ids -> (B, T, C). ValueError for ids, positions or a
        cache that do not fit."""
        return self._forward(ids, cache, self._states)

    def last_logits(self, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Logits after the last token only: (B, T) -> (B, V)."""
        return self._forward(ids, cache, self._last)

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of final-normed states: (..., C) -> (..., V) float32."""
        C = self.cfg.d_model
        if states.shape[-1:] != (C,) or states.dtype != torch.float32:
            raise ValueError(
                f"states {tuple(states.shape)} of {states.dtype}: the head takes float32 (..., {C})"
            )
        if not states.is_cpu:
            raise ValueError(f"states on {states.device}: the head takes them on the CPU")
        states = states.contiguous()
        out = torch.empty(*states.shape[:-1], self.cfg.vocab_size)
        self.multiply(states.data_ptr(), states.numel() // C, out)
        return out

    def step(self, tokens, sequences, positions, cache: Cache) -> torch.Tensor:
        """Rows of (token, sequence, position), each (M,) integers -> logits (M, V), the keys and
        values written to `cache`, whose cursor stays.

        One row is decoding, several of one sequence are a chunk of a prompt or the tokens of a
        draft, several sequences a batch. ValueError unless positions of a sequence follow one
        another and have a slot."""
        rows = [integers(x) for x in (tokens, sequences, positions)]
        seen = check_rows(*rows, self.cfg, cache, self.own().views)
        states = self.scratch(len(rows[0]))
        self.feed(seen, *rows, states)
        out = torch.empty(len(rows[0]), self.cfg.vocab_size)
        self.multiply(states.data_ptr(), len(out), out)
        return out

    # What the entries share.

    def _forward(self, ids, cache, answer) -> torch.Tensor:
        """What `answer` makes of ids that were checked, over the cache or one of the engine's own:
        answer(view, where each row's first token stands, T, tokens)."""
        B, T, tokens = check_ids(ids, self.cfg)
        if cache is None:
            check_length(T, self.cfg)
            return answer(self.room(B, T), [0] * B, T, tokens)

        def body(step):
            first = self.join(cache, B, T)
            return answer(view(cache, step, self.own().views), first, T, tokens)

        return cache.run(T, body, ids.device)

    def _states(self, seen: View, first: list[int], T: int, tokens: list[int]) -> torch.Tensor:
        """States (B, T, C)."""
        return self._fed(seen, first, T, tokens, torch.empty(len(first), T, self.cfg.d_model))

    def _logits(self, seen: View, first: list[int], T: int, tokens: list[int]) -> torch.Tensor:
        """Logits (B, T, V), of states that nobody else sees."""
        states = self._fed(seen, first, T, tokens, self.scratch(len(tokens)))
        out = torch.empty(len(first), T, self.cfg.vocab_size)
        self.multiply(states.data_ptr(), len(tokens), out)
        return out

    def _last(self, seen: View, first: list[int], T: int, tokens: list[int]) -> torch.Tensor:
        """Logits (B, V) of the last position."""
        B, C = len(first), self.cfg.d_model
        states = self._fed(seen, first, T, tokens, self.scratch(len(tokens)))
        if B > 1 and T > 1:
            states = states[: B * T * C].view(B, T, C)[:, -1].contiguous()
        out = torch.empty(B, self.cfg.vocab_size)
        skipped = (T - 1) * C * states.element_size() if B == 1 else 0
        self.multiply(states.data_ptr() + skipped, B, out)
        return out

    def _fed(self, seen, first, T, tokens, out) -> torch.Tensor:
        """`out` with the states of all rows, after one call of the engine."""
        if len(first) == 1:
            self.feed(seen, tokens, [0] * T, range(first[0], first[0] + T), out)
        else:
            sequences = [b for b in range(len(first)) for _ in range(T)]
            positions = [start + t for start in first for t in range(T)]
            self.feed(seen, tokens, sequences, positions, out)
        return out

    def scratch(self, rows: int) -> torch.Tensor:
        """Room for the states of so many rows, that of the last call where they are few: only for
        what is read before the next call."""
        if rows > KEPT_ROWS:
            return torch.empty(rows * self.cfg.d_model)
        local = self.own()
        if local.states is None:
            local.states = torch.empty(KEPT_ROWS * self.cfg.d_model)
        return local.states

    def multiply(self, states: int, rows: int, out: torch.Tensor) -> None:
        """`out`, contiguous, with the logits of states at this address."""
        where = states, rows, out.data_ptr(), self.arena(1)
        raised(self.engine.engine_multiply(self.reference, self.head_reference, *where))

    def join(self, cache: Cache, B: int, T: int) -> list[int]:
        """Where each row's next token stands; ValueError where T more do not fit."""
        cache.fits(self.cfg)
        if cache.batch != B:
            raise ValueError(
                f"{B} rows do not fit a cache of batch {cache.batch}: make_cache(..., batch={B})"
            )
        paged = isinstance(cache, PagedCache)
        lengths = [table.length for table in cache.tables] if paged else [cache.pos] * B
        if cache.chunk is None:
            cache.admit(T)
            check_length(max(lengths) + T, self.cfg)
        return lengths

    def feed(self, seen: View, tokens, sequences, positions, out: torch.Tensor) -> None:
        """One call of the engine's step, of whole numbers that were checked; `out`, contiguous,
        takes the states of all rows."""
        most, n = seen.seen(max(positions) + 1), len(tokens)
        rows = array("i", [*tokens, *sequences, *positions])  # one behind the other
        at, size = rows.buffer_info()[0], n * rows.itemsize
        places = at, at + size, at + 2 * size, n, out.data_ptr(), self.arena(most), most
        raised(self.engine.engine_step(self.reference, seen.reference, *places))

    def own(self):
        """What belongs to this thread: working memory, the views of caches, a cache of its own."""
        local = self.local
        if not hasattr(local, "views"):
            local.views, local.room, local.states = WeakKeyDictionary(), None, None
            local.tokens, local.sequences, local.arena = 0, 1, None
        return local

    def arena(self, tokens: int, sequences: int = 0) -> int:
        """The address of this thread's working memory for attention over `tokens` and the logits
        of `sequences`, zero at first."""
        local = self.own()
        if local.tokens < tokens or local.sequences < sequences:
            local.tokens = max(2 * tokens, local.tokens, 64)  # it grows with the text: not often
            local.sequences = max(sequences, local.sequences)
            size = self.engine.engine_arena(self.reference, local.tokens, local.sequences)
            local.memory = torch.zeros(size)
            local.arena = local.memory.data_ptr()
        return local.arena

    def room(self, B: int, tokens: int) -> View:
        """This thread's own contiguous FP32 cache, for a call that brings none; what lies there is
        written before it is read."""
        local = self.own()
        if local.room is None or local.room.batch < B or local.room.tokens < tokens:
            local.room = self.new_room(B, max(tokens, min(self.cfg.context, 64)))
        return local.room

    def take_room(self, B: int, tokens: int) -> View:
        """The same for a caller that comes back to it, who gives it back by `own().room`."""
        found, self.own().room = self.room(B, tokens), None
        return found

    def new_room(self, B: int, tokens: int) -> View:
        """A contiguous FP32 cache, (L, 2, B, Hkv, tokens, D), with nothing in it."""
        Hkv, D = self.cfg.kv_heads, self.cfg.head_dim
        store = torch.empty(self.cfg.n_layers, 2, B, Hkv, tokens, D)
        size, first = 4 * Hkv * tokens * D, store.data_ptr()
        keys = [first + 2 * B * size * i for i in range(self.cfg.n_layers)]
        places, strides = [(k, k + B * size) * 2 for k in keys], (size, 4 * D, 4 * tokens * D)
        return View(store, places, strides, bits=32, block=tokens).lay([[row] for row in range(B)])
