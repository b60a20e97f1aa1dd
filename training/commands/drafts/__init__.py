"""Scenarios on one's own tables: the command ``proxycoop scenarios new``."""

if __name__ != "proxycoop.training.commands.drafts":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.commands.drafts'")
