"""How hard hypothesis searches: HYPOTHESIS_PROFILE=long for many more examples, drawn afresh every time."""

import os

from hypothesis import HealthCheck, settings

slow_draws = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=slow_draws
)
settings.register_profile("long", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=slow_draws)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
