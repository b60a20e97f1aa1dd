"""Settings of every test."""

import torch
from hypothesis import settings

# Test processes stand side by side: threads within them would only fight for the cores.
torch.set_num_threads(1)

# No deadline, since the first example pays for filling caches; the same examples on every machine and run.
settings.register_profile("proxycoop", deadline=None, derandomize=True)
settings.load_profile("proxycoop")
