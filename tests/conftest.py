"""What holds for every test: the examples of property tests are few and the same in every run.

HYPOTHESIS_PROFILE=default looks for others, as many as hypothesis likes."""

import os

from hypothesis import settings

settings.register_profile("fixed", max_examples=40, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
