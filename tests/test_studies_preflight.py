"""What the chapters need of their parameters, checked before anything runs."""

import pytest

from studies.preflight import check


def test_a_shape_that_no_model_has_is_refused():
    check({"d_model": 128, "n_heads": 4, "context": 512, "seed": 42})
    with pytest.raises(ValueError, match="n_heads 3 does not divide d_model 128"):
        check({"d_model": 128, "n_heads": 3})
