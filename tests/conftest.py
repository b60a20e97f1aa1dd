"""Settings of every test."""

from hypothesis import settings

# No deadline, since the first example pays for filling caches; the same examples on every machine and run.
settings.register_profile("proxycoop", deadline=None, derandomize=True)
settings.load_profile("proxycoop")
