"""The time model: when a cache helps, and what bounds the help.

    uncached step over t tokens   T_nc(t) = o + max(w, h + c·t + a·t²)
    cached step after t tokens    T_c(t)  = o' + max(w + κ·t, h + c)

o and o' are the fixed cost of a call (the plateau of its curve minus w), w the time to read every
weight once, h the head's compute, once a forward, c the compute of one token, a·t² the attention of
t queries over t keys, κ the cache read per past token, never less than 0. In the manner of Pope et
al. 2022 and the roofline of Williams et al. 2009, with the overhead that rules at this size."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import linregress, t

from ..fields import real, whole


@dataclass(frozen=True)
class TimeModel:
    """Constants in seconds (κ: seconds a token, with its 95 % interval); see the module's
    equations. `head` is 0 where it is fitted: what is the same for every t is in o and o'."""

    overhead: float
    cached_overhead: float
    weights: float
    compute: float
    attention: float
    kappa: float
    kappa_interval: tuple[float, float]
    head: float = 0.0

    @property
    def knee(self) -> float:
        """t* = (o + w) / c: the number of tokens that cost as much as the fixed part of a step."""
        return (self.overhead + self.weights) / self.compute

    @property
    def kappa_resolvable(self) -> bool:
        """Whether the cache read shows above the noise: its interval excludes zero."""
        return self.kappa_interval[0] > 0

    def uncached(self, tokens):
        """Seconds of one forward over `tokens` (a number or an array)."""
        tokens = np.asarray(tokens, dtype=float)
        compute = self.head + self.compute * tokens + self.attention * tokens**2
        return self.overhead + np.maximum(self.weights, compute)

    def cached(self, past):
        """Seconds of one cached step after `past` tokens."""
        past = np.asarray(past, dtype=float)
        read = self.weights + max(self.kappa, 0.0) * past
        return self.cached_overhead + np.maximum(read, self.head + self.compute)

    def loops(self, prompt: int, new: int) -> tuple[float, float]:
        """Seconds for `new` tokens after a prompt of `prompt`, without a cache and with one.

        The first token comes from a forward over the prompt in both; token i after it from one over
        prompt + i tokens, or from a cached step after prompt + i - 1."""
        prompt, new = whole("prompt", prompt), whole("new", new)
        lengths = np.arange(prompt, prompt + new)
        cached = self.uncached(prompt) + self.cached(lengths[:-1]).sum()
        return float(self.uncached(lengths).sum()), float(cached)

    def speedup(self, prompt: int, new: int) -> float:
        """Uncached over cached time of the same `loops`."""
        again, cached = self.loops(prompt, new)
        return again / cached

    def without_overhead(self, flops_per_token, flops_per_second, head_flops=0) -> "TimeModel":
        """The roofline: no less than reading the weights once, and computing at the machine's
        measured peak, the head once a forward; call overhead, attention's square and cache reads
        are left out, so it bounds both loops from below."""
        c, head = flops_per_token / flops_per_second, head_flops / flops_per_second
        return TimeModel(0.0, 0.0, self.weights, c, 0.0, 0.0, (0.0, 0.0), head)


def fit(lengths, uncached_seconds, cached_lengths, cached_seconds, weights: float) -> TimeModel:
    """Fit the model to medians: uncached forwards of `lengths` tokens, cached steps after
    `cached_lengths` tokens.

    `weights` is w, measured apart (`read_seconds` of the bytes a step reads). o, c and a minimise
    the squared logarithmic error of the uncached forwards, a at least 0. κ is the slope of the
    least-squares line through the cached steps, in absolute seconds, with its t interval;
    resolvable or not, the estimate predicts best. o' is the median of what the rest of T_c leaves,
    at least 0.

    ValueError for fewer than three lengths of either, or seconds that are not positive and
    finite."""
    weights = real("weights", weights)
    x, y = _curve("uncached", lengths, uncached_seconds)
    scale = np.array([y.min(), y.max() / x.max(), y.max() / x.max() ** 2])

    def residual(p):
        o, c, a = p * scale
        return np.log((o + np.maximum(weights, c * x + a * x**2)) / y)

    # dogbox reaches a bound, so that attention which is not to be seen is 0 and no bound's number
    options = dict(bounds=([1e-6, 1e-6, 0], np.inf), method="dogbox")
    o, c, a = least_squares(residual, x0=[0.9, 0.9, 0.1], **options).x * scale
    past, seconds = _curve("cached", cached_lengths, cached_seconds)
    line = linregress(past, seconds)
    half = float(t.ppf(0.975, max(len(past) - 2, 1))) * line.stderr
    left = float(np.median(seconds - np.maximum(weights + max(line.slope, 0.0) * past, c)))
    interval = line.slope - half, line.slope + half
    return TimeModel(o, max(left, 0.0), weights, c, a, float(line.slope), interval)


def _curve(name, lengths, seconds):
    """Both as float arrays (n,), n >= 3; ValueError for what no curve can be fitted to."""
    x, y = np.asarray(lengths, dtype=float), np.asarray(seconds, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(np.unique(x)) < 3:
        raise ValueError(
            f"{name} lengths of shape {x.shape} and seconds of shape {y.shape}: "
            "give as many of one as of the other, three different lengths at least"
        )
    if not (np.isfinite(x).all() and (x > 0).all() and np.isfinite(y).all() and (y > 0).all()):
        raise ValueError(
            f"{name} lengths {x.min():g} to {x.max():g} take {y.min():g} to {y.max():g} s: "
            "give positive, finite numbers"
        )
    return x, y
