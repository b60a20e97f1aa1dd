"""Formulae as MathML: browsers draw it themselves, so that a page needs neither a script nor a font from elsewhere."""

from __future__ import annotations

import itertools

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_LOG = logging.getLogger(__name__)

_BARS = itertools.product(("<mo>", '<mo stretchy="false">'), "|‖")
_NICER = {
    "⧵": "∖",  # a set difference that more fonts have
    **{f"{head}{bar}</mo>": f'<mo stretchy="false" lspace="0" rspace="0">{bar}</mo>' for head, bar in _BARS},
    "<mo>!</mo>": '<mo lspace="0" rspace="0">!</mo>',
}
"""Pieces of MathML as docutils writes them, and as they look better: bars and factorials without space around them."""


def _mathml(translator: HTML5Translator, node: nodes.Element, *, block: bool) -> None:
    """Write a formula; one that cannot be converted is a warning, and stands as it was written."""
    formula = node.astext().replace(r"\dots", r"\ldots")  # docutils knows only the second name
    try:
        text = tex2mathml(formula, as_block=block)
        for old, new in _NICER.items():
            text = text.replace(old, new)
    except MathError as error:
        _LOG.warning("formula %r: %s", formula, error, location=node)
        text = f"<code>{translator.encode(formula)}</code>"
    translator.body.append(f'<div class="math">{text}</div>\n' if block else text)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda translator, node: _mathml(translator, node, block=False), None),
        block_renderers=(lambda translator, node: _mathml(translator, node, block=True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
