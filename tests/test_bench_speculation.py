"""What speculation promises is the expectation of the process it describes."""

import pytest

from minitransformer.bench import speculative_gain, speculative_tokens


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("gamma", [1, 4, 8])
def test_expected_tokens_are_the_mean_over_where_the_first_rejection_falls(alpha, gamma):
    mean = sum((k + 1) * alpha**k * (1 - alpha) for k in range(gamma)) + (gamma + 1) * alpha**gamma
    assert speculative_tokens(alpha, gamma) == pytest.approx(mean)
    if alpha < 1:
        assert speculative_tokens(alpha, gamma) == pytest.approx(
            (1 - alpha ** (gamma + 1)) / (1 - alpha)
        )


def test_gain_is_tokens_over_cost_and_a_useless_draft_costs():
    assert speculative_gain(0.8, 4, draft_cost=0.0) == pytest.approx(3.3616)
    assert speculative_gain(0.8, 4, draft_cost=0.1, verify_cost=1.2) == pytest.approx(3.3616 / 1.6)
    assert speculative_gain(0.0, 4, draft_cost=0.1) < 1
    with pytest.raises(ValueError, match=r"alpha 1.2 is out of range: give 0 to 1"):
        speculative_tokens(1.2, 4)
