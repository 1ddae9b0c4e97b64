"""The decoder-only transformer: a frozen configuration and the forward pass, nothing else.

Letters in shape comments, everywhere in this library:

    B batch   T new tokens   S cached tokens   H query heads   Hkv key/value heads
    D head dim   C model width   V vocabulary

The defaults of `ModelConfig` are the model of the original report: one pre-norm block, width 128,
four heads, ReLU."""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from .fields import choice, flag, real, settle, whole

POSITIONS = ("rope", "sinusoidal", "none")
NORMS = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}  # Ba 2016; Zhang and Sennrich 2019
FFNS = ("relu", "gelu", "relu2", "swiglu")  # relu2 is relu(x)^2 (So et al. 2021)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape of a `Transformer`; weights never depend on `context`.

    Whole numbers of any library, and floats that lose nothing (32.0), are stored as ints. Raises
    ValueError naming the field, its value and the remedy."""

    vocab_size: int = 1004
    d_model: int = 128
    n_layers: int = 1
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: n_heads (MHA); 1 is MQA (Shazeer 2019); between is GQA
    d_ff: int | None = None  # None: 4·d_model; SwiGLU: 8/3·d_model, up to a multiple of 32
    context: int = 512  # the most tokens that one forward may see
    position: str = "rope"  # one of POSITIONS
    norm: str = "layernorm"  # one of NORMS
    ffn: str = "relu"  # one of FFNS
    bias: bool = True  # in every linear layer
    tied: bool = False  # the head's matrix is the embedding's (Press and Wolf 2017)
    qk_norm: bool = False  # each head's queries and keys through an RMSNorm (Henry et al. 2020)
    smeared_keys: bool = False  # see `SmearedKeys`
    rope_theta: float = 10000.0  # the base of RoPE's frequencies
    # None; ("linear", factor); ("llama3", factor, low, high, original context) of Llama 3.1
    rope_scaling: tuple | None = None
    d_head: int | None = None  # None: d_model / n_heads
    norm_eps: float | None = None  # None: 1e-5 for LayerNorm, 2^-23 for RMSNorm

    def __post_init__(self):
        sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "context")
        settle(self, **{name: whole(name, getattr(self, name)) for name in sizes})
        for name in ("n_kv_heads", "d_ff", "d_head"):
            if getattr(self, name) is not None:
                settle(self, **{name: whole(name, getattr(self, name))})
        for name in ("bias", "tied", "qk_norm", "smeared_keys"):
            settle(self, **{name: flag(name, getattr(self, name))})
        for name, known in (("position", POSITIONS), ("norm", NORMS), ("ffn", FFNS)):
            settle(self, **{name: choice(name, getattr(self, name), known)})
        settle(self, rope_theta=real("rope_theta", self.rope_theta, above=True))
        settle(self, rope_scaling=_scaling(self.rope_scaling))
        if self.norm_eps is not None:
            settle(self, norm_eps=real("norm_eps", self.norm_eps, above=True, high=1.0))
        self._fit()

    def _fit(self):
        """ValueError for sizes that do not go together."""
        if self.d_head is None and self.d_model % self.n_heads:
            small = [h for h in range(1, math.isqrt(self.d_model) + 1) if self.d_model % h == 0]
            divisors = sorted({*small, *(self.d_model // h for h in small)})
            close = min(divisors, key=lambda h: abs(h - self.n_heads))
            raise ValueError(
                f"n_heads {self.n_heads} does not divide d_model {self.d_model}: "
                f"the nearest that does is {close}"
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}: "
                "give a divisor of n_heads"
            )
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(
                f"head dim {self.head_dim} is odd, and RoPE rotates pairs: "
                "give an even d_model / n_heads"
            )
        if self.smeared_keys and self.head_dim % 2:
            raise ValueError(
                f"head dim {self.head_dim} is odd, and smeared keys mix pairs: "
                "give an even d_model / n_heads, or smeared_keys False"
            )
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"d_model {self.d_model} is odd, and sinusoids come in pairs: give an even d_model"
            )

    @property
    def head_dim(self) -> int:
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def ffn_dim(self) -> int:
        if self.d_ff is not None:
            return self.d_ff
        return 32 * math.ceil(self.d_model / 12) if self.ffn == "swiglu" else 4 * self.d_model


def _scaling(value) -> tuple | None:
    """A RoPE scaling as a tuple of its name and its numbers; ValueError for any other."""
    if value is None:
        return None
    name, *numbers = value if isinstance(value, (tuple, list)) and value else (value,)
    if len(numbers) != {"linear": 1, "llama3": 4}.get(name, -1):
        raise ValueError(
            f"rope_scaling {value!r} is unknown: give None, ('linear', factor) or ('llama3', "
            "factor, low, high, original context)"
        )
    return name, *(real(f"rope_scaling {name}", x, above=True) for x in numbers)


def frequencies(cfg: ModelConfig) -> torch.Tensor:
    """Radians a position that each pair of RoPE turns, (D/2,) float64: theta^(-2i/D), stretched
    where the configuration says so (Chen et al. 2023; Llama 3.1)."""
    D = cfg.head_dim
    turn = cfg.rope_theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    if cfg.rope_scaling is None:
        return turn
    kind, factor, *rest = cfg.rope_scaling
    if kind == "linear":
        return turn / factor
    low, high, before = rest
    # Turns within the original context: many stay, few are stretched, between them a ramp.
    share = ((before * turn / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return turn * (share + (1 - share) / factor)


def position_table(cfg: ModelConfig) -> torch.Tensor | None:
    """Cosines and sines of position · theta^(-2i/n) for every position of the context, computed in
    float64.

    RoPE: (context, D), cosines then sines. Sinusoidal (Vaswani et al. 2017): (context, C), sines
    then cosines."""
    if cfg.position == "none":
        return None
    if cfg.position == "rope":
        inverse = frequencies(cfg)  # (D/2,)
    else:
        C = cfg.d_model
        inverse = 10000.0 ** (-torch.arange(0, C, 2, dtype=torch.float64) / C)  # (C/2,)
    angle = torch.arange(cfg.context, dtype=torch.float64)[:, None] * inverse  # (context, n/2)
    pair = (angle.cos(), angle.sin()) if cfg.position == "rope" else (angle.sin(), angle.cos())
    return torch.cat(pair, dim=-1).to(torch.get_default_dtype())


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding on half-split pairs (Su et al. 2021): x (B, H, T, D), cos and sin
    (..., T, D/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class SmearedKeys(nn.Module):
    """Every second pair of a key's channels is that of the token before, (B, Hkv, S, D) -> (B, Hkv,
    S, D), so that a head finds in one look what followed a token (Olsson et al. 2022, "In-context
    Learning and Induction Heads", where the share is learnt).

    Keys come as a cache keeps them, normed and rotated to their places; the one before is turned by
    one place more, as if it stood where the token does. The first token has zeros there."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        D, n = cfg.head_dim, cfg.head_dim // 2
        mixed = torch.arange(D) % n % 2 == 1
        turn = frequencies(cfg) if cfg.position == "rope" else torch.zeros(n, dtype=torch.float64)
        turn = rotate(torch.eye(D, dtype=torch.float64), turn.cos(), turn.sin()) * mixed
        kind = torch.get_default_dtype()
        self.register_buffer("turn", turn.to(kind), persistent=False)  # (D, D)
        self.register_buffer("keep", (~mixed).to(kind), persistent=False)  # (D,)

    def forward(self, k: torch.Tensor) -> torch.Tensor:
        return F.pad(k @ self.turn, (0, 0, 1, -1)) + k * self.keep


class Attention(nn.Module):
    """Causal multi-head attention, x (B, T, C) -> (B, T, C); with `n_kv_heads` < `n_heads`,
    grouped-query (Ainslie et al. 2023). `rope` is (cos, sin), `cache` one layer of a cache."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.q = nn.Linear(cfg.d_model, cfg.n_heads * cfg.head_dim, bias=cfg.bias)
        self.k = nn.Linear(cfg.d_model, cfg.kv_heads * cfg.head_dim, bias=cfg.bias)
        self.v = nn.Linear(cfg.d_model, cfg.kv_heads * cfg.head_dim, bias=cfg.bias)
        self.out = nn.Linear(cfg.n_heads * cfg.head_dim, cfg.d_model, bias=cfg.bias)
        for name in ("q_norm", "k_norm"):
            norm = nn.RMSNorm(cfg.head_dim, cfg.norm_eps) if cfg.qk_norm else nn.Identity()
            setattr(self, name, norm)
        self.smear = SmearedKeys(cfg) if cfg.smeared_keys else nn.Identity()

    def project(self, x: torch.Tensor, rope: tuple | None):
        """Queries, keys and values, heads apart and rotated, keys not smeared: (B, T, C) ->
        (B, H, T, D), (B, Hkv, T, D), (B, Hkv, T, D)."""
        B, T, _ = x.shape
        D = self.cfg.head_dim
        q = self.q_norm(self.q(x).view(B, T, self.cfg.n_heads, D)).transpose(1, 2)  # (B, H, T, D)
        # Keys and values: (B, Hkv, T, D).
        k = self.k_norm(self.k(x).view(B, T, self.cfg.kv_heads, D)).transpose(1, 2)
        v = self.v(x).view(B, T, self.cfg.kv_heads, D).transpose(1, 2)
        return (rotate(q, *rope), rotate(k, *rope), v) if rope else (q, k, v)

    def forward(self, x, rope=None, mask=None, cache=None):
        q, k, v = self.project(x, rope)
        if cache is not None:
            k, v = cache.update(k, v)  # (B, Hkv, S, D)
            if k.dtype != q.dtype:  # a cache of another type than the model's
                k, v = k.to(q.dtype), v.to(q.dtype)
        k = self.smear(k)
        # is_causal is aligned upper-left, so it is right only where queries and keys are the same
        # tokens.
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and 1 < q.shape[2] == k.shape[2],
            enable_gqa=self.cfg.kv_heads != self.cfg.n_heads,
        )  # (B, H, T, D)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, C)


class FeedForward(nn.Module):
    """Position-wise network, (B, T, C) -> (B, T, C): act(x W_up) W_down, or SwiGLU:
    (silu(x W_gate) · x W_up) W_down (Shazeer 2020)."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.kind = cfg.ffn
        self.gate = (
            nn.Linear(cfg.d_model, cfg.ffn_dim, bias=cfg.bias) if cfg.ffn == "swiglu" else None
        )
        self.up = nn.Linear(cfg.d_model, cfg.ffn_dim, bias=cfg.bias)
        self.down = nn.Linear(cfg.ffn_dim, cfg.d_model, bias=cfg.bias)

    def forward(self, x):
        h = self.up(x)
        if self.kind == "relu":
            h = F.relu(h)
        elif self.kind == "gelu":
            h = F.gelu(h)
        elif self.kind == "relu2":
            h = F.relu(h).square()
        else:
            h = F.silu(self.gate(x)) * h
        return self.down(h)


def norm_of(cfg: ModelConfig) -> nn.Module:
    """The norm of the residual stream."""
    kind = NORMS[cfg.norm]
    return kind(cfg.d_model) if cfg.norm_eps is None else kind(cfg.d_model, cfg.norm_eps)


class Block(nn.Module):
    """One pre-norm residual block (Xiong et al. 2020): (B, T, C) -> (B, T, C)."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.attention_norm = norm_of(cfg)
        self.attention = Attention(cfg)
        self.ffn_norm = norm_of(cfg)
        self.ffn = FeedForward(cfg)

    def forward(self, x, rope=None, mask=None, cache=None):
        x = x + self.attention(self.attention_norm(x), rope, mask, cache)
        return x + self.ffn(self.ffn_norm(x))


class Transformer(nn.Module):
    """Token ids to next-token logits. A cache, when given, makes a step of each forward: it gives
    positions and mask, takes keys and values, and is never known by kind (see `cache.base`)."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.embedding = nn.Embedding(cfg.vocab_size, cfg.d_model)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.norm = norm_of(cfg)
        self.head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=cfg.bias)
        if cfg.tied:
            self.head.weight = self.embedding.weight
        # Made from cfg anew, so never saved.
        self.register_buffer("table", position_table(cfg), persistent=False)

    def forward(self, ids: torch.Tensor, cache=None) -> torch.Tensor:
        """Logits of the next token at every position: (B, T) -> (B, T, V). Over a cache, all or
        nothing: an exception anywhere leaves it as it was."""
        if cache is None:
            return self.head(self.states(ids))
        cache.fits(self.cfg)
        return cache.run(ids.shape[1], lambda step: self.head(self.states(ids, step)), ids.device)

    def hidden(self, ids: torch.Tensor, cache=None) -> torch.Tensor:
        """Final-normed states: (B, T) integer ids -> (B, T, C). ValueError when a position passes
        `context`."""
        if cache is None:
            return self.states(ids)
        cache.fits(self.cfg)
        return cache.run(ids.shape[1], lambda step: self.states(ids, step), ids.device)

    def states(self, ids: torch.Tensor, step=None) -> torch.Tensor:
        """What `hidden` returns; over a cache, `step` is the forward's own, yet to be committed."""
        mask = None
        if step is None:
            last = ids.shape[1]
            positions = torch.arange(last, device=ids.device)  # (T,)
        else:
            positions, last, mask = step.positions, step.last, step.mask
        x, rope = self.embed(ids, positions, last)
        for i, block in enumerate(self.blocks):
            x = block(x, rope, mask, None if step is None else step[i])
        return self.norm(x)

    def embed(self, ids: torch.Tensor, positions: torch.Tensor, last: int):
        """Embedded tokens (B, T, C) and the rotary (cos, sin), each (..., T, D/2), or None;
        positions (T,) or (B, T) are below `last`."""
        if last > self.cfg.context:  # asked of an integer, so that the forward can be traced
            raise ValueError(
                f"{last} tokens are longer than context {self.cfg.context}: "
                "shorten the input or raise context"
            )
        x = self.embedding(ids)  # (B, T, C)
        if self.cfg.position == "none":
            return x, None
        table = self.table[positions]  # (T, n) or (B, T, n)
        if self.cfg.position == "sinusoidal":
            return x + table, None
        if table.ndim == 3:
            table = table[:, None]  # (B, 1, T, D): the same rotation for every head
        return x, table.chunk(2, dim=-1)
