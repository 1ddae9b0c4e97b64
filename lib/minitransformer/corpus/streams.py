"""Integers from SHAKE-256: the one source of randomness of every corpus and batch, the same on
every machine.

No library's random generator promises the same numbers in its next release; a hash function does. A
shorter output is a prefix of a longer one, so a stream can grow without changing what was there."""

import hashlib
import hmac
import string

import numpy as np


def check_seed(seed: int | str) -> str:
    """The seed in decimal digits, without leading zeros; ValueError names what else was given."""
    text = str(seed).strip()
    if isinstance(seed, bool) or not (text.isascii() and text.isdigit()):
        raise ValueError(f"seed {seed!r} is not a decimal number: give digits only, such as 42")
    return str(int(text))


def check_salt(salt: str) -> str:
    """The salt in lower case; ValueError when it is not hexadecimal or has fewer than 16 digits."""
    text = str(salt).strip().lower()
    if not text or set(text) - set(string.hexdigits):
        raise ValueError(
            f"salt {salt!r} is not hexadecimal: give at least 16 digits 0-9 a-f, such as"
            " 1a2b3c4d5e6f7890"
        )
    if len(text) < 16:
        raise ValueError(f"salt {salt!r} has {len(text)} hexadecimal digits: give at least 16")
    return text


class Stream:
    """Named, independent streams of 64-bit integers, keyed by HMAC-SHA-256 of seed and salt (both
    as ASCII bytes)."""

    def __init__(self, seed: int | str, salt: str, purpose: str):
        message = f"{purpose}|{check_seed(seed)}".encode()
        self.key = hmac.new(check_salt(salt).encode(), message, hashlib.sha256).digest()

    def draw(self, role: str, n: int) -> np.ndarray:
        """The first n integers of a role, uint64 (n,)."""
        return draw(self.key + b"|" + role.encode(), n)


def draw(key: bytes, n: int) -> np.ndarray:
    """The first n little-endian 64-bit integers of SHAKE-256(key), uint64 (n,)."""
    return np.frombuffer(hashlib.shake_256(key).digest(8 * n), "<u8").astype(np.uint64, copy=False)


class Dice:
    """Unbiased integers and permutations from one stream of 64-bit integers; IndexError when it
    runs dry."""

    def __init__(self, integers: np.ndarray):
        self._integers, self._next = integers.tolist(), 0

    def below(self, n: int) -> int:
        """A uniform integer in [0, n), by rejection."""
        limit = 2**64 - 2**64 % n
        while True:
            value = self._integers[self._next]
            self._next += 1
            if value < limit:
                return value % n

    def permutation(self, n: int) -> list[int]:
        """A uniform permutation of range(n) (Fisher-Yates, from the last place down)."""
        items = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items
