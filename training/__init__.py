"""Train, evaluate, compare and report: the top floor.

Nothing is imported here, because the RL and plotting libraries behind these modules are slow to load: import
``proxycoop.training.train``, ``.evaluate``, ``.audit``, ``.compare`` or ``.report``.
"""

if __name__ != "proxycoop.training":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training'")
