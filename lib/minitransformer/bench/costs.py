"""What a model costs, from its configuration alone: parameters, operations, bytes. Tests hold these
against real objects."""

import math

from ..affine import packed_bytes
from ..fields import whole
from ..model import ModelConfig


def parameters(cfg: ModelConfig) -> dict[str, int]:
    """Parameters by part; a tied head counts once. Norms are LayerNorm (2 a channel) or RMSNorm
    (1)."""
    C, D, F, b = cfg.d_model, cfg.head_dim, cfg.ffn_dim, int(cfg.bias)
    q, kv = cfg.n_heads * D, cfg.kv_heads * D
    norm = C * (2 if cfg.norm == "layernorm" else 1)
    attention = C * q + q * b + 2 * (C * kv + kv * b) + q * C + C * b + 2 * D * cfg.qk_norm
    ffn = (2 if cfg.ffn == "swiglu" else 1) * (C * F + F * b) + F * C + C * b
    return {
        "embedding": cfg.vocab_size * C,
        "attention": cfg.n_layers * attention,
        "ffn": cfg.n_layers * ffn,
        "norms": (2 * cfg.n_layers + 1) * norm,
        "head": (0 if cfg.tied else cfg.vocab_size * C) + cfg.vocab_size * b,
    }


def weights_read(cfg: ModelConfig) -> int:
    """Parameters one forward of one token reads: all but the embedding rows of other tokens."""
    p = parameters(cfg)
    return sum(p.values()) - (0 if cfg.tied else p["embedding"] - cfg.d_model)


def flops(cfg: ModelConfig, tokens: int, past: int = 0, head_positions: int = 1) -> int:
    """Multiply-adds times two of one forward over `tokens` after `past` cached ones.

    Attention counts the key-query pairs that the causal mask lets through, each with its score and
    its value; the head is applied to `head_positions` positions. Norms, activations and the softmax
    are left out."""
    tokens, past = whole("tokens", tokens), whole("past", past, 0)
    head_positions = whole("head_positions", head_positions, 0)
    C, D = cfg.d_model, cfg.head_dim
    ffn = (3 if cfg.ffn == "swiglu" else 2) * C * cfg.ffn_dim
    matrices = 2 * C * D * (cfg.n_heads + cfg.kv_heads) + ffn
    keys = tokens * past + tokens * (tokens + 1) // 2  # key-query pairs a causal mask lets through
    blocks = cfg.n_layers * (tokens * matrices + 2 * keys * cfg.n_heads * D)
    return 2 * (blocks + head_positions * C * cfg.vocab_size)


def training_flops(cfg: ModelConfig, batch: int, window: int) -> int:
    """Operations of one update on a batch of `batch` windows: three times a forward with the head
    at every position, since a backward costs two (Kaplan et al. 2020, section 2.1)."""
    return 3 * whole("batch", batch) * flops(cfg, window, head_positions=window)


def training_bytes(cfg: ModelConfig, batch: int, window: int) -> dict[str, int]:
    """What one update keeps in FP32 at its fullest, by kind: the weights with their gradients and
    Adam's two moments (16 bytes a parameter), what the forward keeps for the backward, and the
    logits, whose place their gradient takes.

    Kept a token and block, in numbers: what enters norms and matrices, queries, keys and values as
    attention takes them, its output before and after the heads are joined, what the activation
    leaves, and what an RMSNorm has divided. The few numbers a norm keeps a token are left out."""
    C, q, kv = cfg.d_model, cfg.n_heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    inner = {"relu": 1, "gelu": 2, "relu2": 2, "swiglu": 4}[cfg.ffn] * cfg.ffn_dim
    attention = 3 * q + 2 * kv + (2 * (q + kv) if cfg.qk_norm else 0)
    divided = C if cfg.norm == "rmsnorm" else 0
    numbers = cfg.n_layers * (4 * C + 2 * divided + attention + inner) + 2 * C + divided
    tokens = 4 * whole("batch", batch) * whole("window", window)
    return {
        "weights": 16 * sum(parameters(cfg).values()),
        "activations": tokens * numbers,
        "logits": tokens * cfg.vocab_size,
    }


def flop_speedup(cfg: ModelConfig, prompt: int, new: int, head_all: bool = False) -> float:
    """Operations without a cache over operations with one, for `new` tokens after a prompt; a
    count, not a time.

    `head_all`: the uncached loop, and the prefill, apply the head to every position, as the seed
    report's does."""
    prompt, new = whole("prompt", prompt), whole("new", new)
    lengths = range(prompt, prompt + new)
    uncached = sum(flops(cfg, t, head_positions=t if head_all else 1) for t in lengths)
    prefill = flops(cfg, prompt, head_positions=prompt if head_all else 1)
    return uncached / (prefill + sum(flops(cfg, 1, past=t) for t in lengths[:-1]))


def kv_bytes(cfg: ModelConfig, tokens: int, batch: int = 1, itemsize: int = 4, kind="static", *,
             window: int | None = None, sinks: int = 4, residual: int = 32, group: int = 32,
             rollback: int = 0, block_size: int = 16) -> int:  # fmt: skip
    """Bytes of a cache of `kind` and these options whose capacity of `tokens` is full; `itemsize`
    of its full precision.

    2·L·B·Hkv rows of D numbers a slot; as many slots as tokens, those of the window whatever the
    tokens, or whole blocks (paged). A row takes D·itemsize bytes, or with a scale of its own D + 2
    (int8), and with a minimum too D/2 + 4 (paged int4). int4, int2: `group_bytes` for the finished
    groups, full precision for the rest (between two groups up to group - 1 tokens more than at a
    group's end)."""
    tokens, batch = whole("tokens", tokens, 0), whole("batch", batch)
    block_size, group = whole("block_size", block_size), whole("group", group)
    heads, D = 2 * cfg.n_layers * batch * cfg.kv_heads, cfg.head_dim
    blocks = block_size * math.ceil(tokens / block_size)
    kept = rollback + (cfg.context if window is None else window + sinks)
    slots = dict.fromkeys(("static", "dynamic", "int8"), tokens) | {"window": kept}
    slots |= dict.fromkeys(("paged", "paged-int8", "paged-int4"), blocks)
    row = {"int8": D + 2, "paged-int8": D + 2, "paged-int4": packed_bytes(D, 4) + 4}
    if kind in slots:
        return heads * slots[kind] * row.get(kind, D * itemsize)
    if kind not in ("int4", "int2"):
        raise ValueError(
            f"cache kind {kind!r} has no formula for its bytes: "
            f"choose one of {', '.join(slots)}, int4, int2"
        )
    groups, held = (max(0, n - residual) // group for n in (tokens, tokens - rollback))
    packed = groups * group_bytes(cfg, int(kind.removeprefix("int")), group)
    full = heads * (tokens - held * group) * D * itemsize
    return cfg.n_layers * batch * cfg.kv_heads * packed + full


def group_bytes(cfg: ModelConfig, bits: int, group: int) -> int:
    """Bytes of one group of tokens of one head, keys and values: codes, and a float16 scale and
    minimum for each n of them."""
    channels = group if cfg.head_dim % group == 0 else cfg.head_dim
    return sum(group * cfg.head_dim // n * (packed_bytes(n, bits) + 4) for n in (group, channels))
