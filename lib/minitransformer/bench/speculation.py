"""What speculation promises: tokens a forward, and time, from the share of proposals that are
accepted."""

from ..fields import real, whole


def speculative_tokens(alpha: float, gamma: int) -> float:
    """Expected tokens of one forward, (1 - α^(γ+1)) / (1 - α): Leviathan et al. 2023, equation 1.

    `alpha` is the probability that a proposal is accepted, taken as the same and independent at
    each of `gamma` proposals."""
    alpha, gamma = real("alpha", alpha, 0, 1), whole("gamma", gamma, 0)
    return float(sum(alpha**i for i in range(gamma + 1)))


def speculative_gain(
    alpha: float, gamma: int, draft_cost: float, verify_cost: float = 1.0
) -> float:
    """Plain over speculative time a token: expected tokens / (γ·c + v), costs in units of the
    model's own one-token step.

    `draft_cost` c is one proposal's, `verify_cost` v that of a forward over γ + 1 tokens: 1 while γ
    + 1 stays below t*. Theorem 3.8 of Leviathan et al. 2023 with v = 1."""
    return speculative_tokens(alpha, gamma) / (gamma * draft_cost + verify_cost)
