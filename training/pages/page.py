"""Self-contained HTML pages from templates."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from ...files import write_text
from ...text import printable


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template of the package and write the page.

    Args:
        path: The HTML file.
        template: The template's file name.
        **content: What it needs.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be written.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
        finalize=_shown,
    )
    page = environment.get_template(template).render(**content)
    try:
        return write_text(path, page)
    except OSError as error:
        raise ValueError(f"page {str(path)!r} cannot be written: {error.strerror or error}") from error


def _shown(value: Any) -> Any:
    """What stands on the page for a value: text shows as it is, whatever characters it has. Markup of ours is left alone."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")
