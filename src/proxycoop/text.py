"""Text that users supply, for tables and pictures."""


def one_line(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
