"""Settings of all tests."""

from hypothesis import settings

# The same examples in every run, and no time limit for one: a slow or busy machine is no failure.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
