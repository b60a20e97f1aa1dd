"""What can be named: the commands that list it, and the manual of a rule."""

if __name__ != "proxycoop.training.commands.listings":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.commands.listings'")
