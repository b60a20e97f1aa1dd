"""Rounds as compiled functions of tensors, by :func:`torch.compile`.

* ``assumptions``: what a compiled function takes for granted, and tells when it did not hold;
* ``trees``: records as lists of tensors, and back;
* ``functions``: a function of records, traced once and compiled;
* ``compilers``: whether there is a compiler for a device.
"""

if __name__ != "proxycoop.envs.compiled":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")
