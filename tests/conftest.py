"""What holds for all tests."""

from hypothesis import settings

# The same examples in every run: a change that breaks a test is the one that is being tested.
settings.register_profile("hadas", derandomize=True)
settings.load_profile("hadas")
