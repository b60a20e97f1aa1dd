"""Makes text from users safe for tables and pictures."""


def one_line(text: str) -> str:
    """The text on one line: each character that cannot be printed becomes a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
