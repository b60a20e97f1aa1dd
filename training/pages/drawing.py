"""What all figures share: their style, curves with names at their ends, and the figure as a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...text import one_line
from ..analysis.summary import Floats, wrapped
from ..evaluate import Estimate

End = tuple[float, float, str, str]
"""Where a curve ends, its name and colour."""

GREY, RULE = "#595959", "#808080"
BLUE, VERMILION = "#0072B2", "#D55E00"
WIDTH = 5.0
"""Width in inches. A figure of this width is readable on a telephone, and two of them fit beside each other on a desktop screen."""
_SETTINGS: Mapping[str, Any] = {
    "text.parse_math": False,  # names may hold a "$"
    "svg.hashsalt": "proxycoop",  # the same data gives the same file
    "svg.fonttype": "none",  # text stays text, which can be searched, selected and edited
    "pdf.fonttype": 42,  # whole fonts: many publishers refuse PDFs whose letters are drawings
    # the first is Matplotlib's own, by which text is measured; the others are about as wide, or narrower
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Geneva", "Arial", "Helvetica", "sans-serif"],
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), RULE),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "black"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e6e6e6",
    "hatch.linewidth": 0.8,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "lines.solid_capstyle": "butt",
    "figure.constrained_layout.h_pad": 0.06,
}


@dataclass(frozen=True)
class Drawing:
    """A figure of a page.

    Attributes:
        key: Name of the figure; the template has its title and caption.
        alt: Its content in words and numbers, for readers who cannot see it.
        figure: The figure.
    """

    key: str
    alt: str
    figure: Figure

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG. It holds its content in words too."""
        drawn = self._saved("svg", {"Date": None, "Creator": None})
        return drawn.replace(b"<defs>", f"<desc>{escape(self.alt)}</desc>\n <defs>".encode(), 1)

    @property
    def pdf(self) -> bytes:
        """The figure as PDF, for papers."""
        return self._saved("pdf", {"CreationDate": None, "Creator": None, "Producer": None, "Subject": self.alt})

    @property
    def png(self) -> bytes:
        """The figure as PNG, for slides."""
        return self._saved("png", {"Software": None, "Description": self.alt}, dpi=200)

    @property
    def uri(self) -> str:
        """The figure as a ``data:`` address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()

    def _saved(self, form: str, metadata: Mapping[str, str | None], **how: Any) -> bytes:
        buffer = io.BytesIO()
        with house_style():
            self.figure.savefig(buffer, format=form, metadata=dict(metadata), **how)
        self.figure.set_layout_engine("none")  # all files of a figure are laid out alike, by the first
        return buffer.getvalue()


@dataclass(frozen=True)
class Look:
    """How a curve looks: a credit rule looks the same in every figure."""

    colour: str
    dashes: Any
    marker: str


Looks = Mapping[str, Look]


@contextmanager
def house_style() -> Iterator[None]:
    """Replace Matplotlib's settings, and restore them at the end. Do not draw in other threads meanwhile."""
    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context(settings | dict(_SETTINGS)):
        yield


def line(ax: Axes, x: Floats, values: Floats, name: str, look: Look, index: int, *, band: bool = True) -> End:
    """Draw the mean over seeds of ``(n_seeds, n)`` and its band. Markers are staggered by ``index``."""
    estimates = [Estimate.of(torch.from_numpy(column)) for column in values.T]
    mean, half = (np.array([getattr(e, part) or 0.0 for e in estimates]) for part in ("mean", "half_width"))
    if band and half.any():
        ax.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.1, linewidth=0)
    every = max(len(x) // 7, 1)
    marks: dict[str, Any] = {"marker": look.marker, "markersize": 3.6, "markevery": (index * every // 5 % every, every)}
    ax.plot(x, mean, color=look.colour, linestyle=look.dashes, **marks)
    return float(x[-1]), float(mean[-1]), name, look.colour


def fit(axes: Sequence[Axes], *, share: bool = False) -> None:
    """Give all axes the same vertical limits, chosen by the lines. Bands may run out of the frame."""
    data = np.concatenate([np.asarray(curve.get_ydata(), dtype=float).ravel() for ax in axes for curve in ax.get_lines()])
    low, high = float(data.min()), float(data.max())
    margin = 0.12 * (high - low) or max(abs(high), 0.1) * 0.1
    low, high = low - margin, high + margin
    for ax in axes:
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.set_ylim((max(low, -0.02), min(high, 1.02)) if share else (low, high))
        if share:
            ax.yaxis.set_major_formatter(PercentFormatter(1, None, " %"))


def name_ends(figure: Figure, ax: Axes, ends: Sequence[End]) -> None:
    """Write names to the right of the curves' ends, joined to them by thin lines. Names that would overlap are moved apart."""
    ax.set_xlim(right=max(x for x, *_ in ends))
    texts = [drawable(name, 18).replace("\n", "\n ") for _, _, name, _ in ends]
    figure.draw_without_rendering()  # lays the figure out, so that sizes are known
    (low, high), points = ax.get_ylim(), ax.get_window_extent().height / figure.dpi * 72
    heights = [9.2 / points * (text.count("\n") + 1) for text in texts]  # as shares of the axis, as all below
    ys = [min(max((y - low) / (high - low), 0.0), 1.0) for _, y, *_ in ends]
    blocks: list[tuple[list[int], float, float]] = []  # who, height, centre
    for i in sorted(range(len(ends)), key=ys.__getitem__):
        who, height = [i], heights[i]
        centre = min(max(ys[i], height / 2), 1 - height / 2)
        while blocks and blocks[-1][2] + blocks[-1][1] / 2 > centre - height / 2:
            below, height_below, centre_below = blocks.pop()
            centre = (centre_below * len(below) + centre * len(who)) / (len(below) + len(who))
            who, height = below + who, height + height_below
            centre = max(min(centre, 1 - height / 2), height / 2)
        blocks.append((who, height, centre))
    for who, height, centre in blocks:
        bottom = centre - height / 2
        for i in who:
            y = bottom + heights[i] / 2
            bottom += heights[i]
            ax.plot([1, 1.05], [ys[i], y], color=ends[i][-1], linewidth=0.7, transform=ax.transAxes, clip_on=False)
            ax.text(1.05, y, f" {texts[i]}", transform=ax.transAxes, va="center", fontsize=7.5, linespacing=1.05)


def drawable(name: str, width: int) -> str:
    """A name on as many lines as it needs. Letters that the font lacks are replaced by boxes."""
    font = get_font(findfont("DejaVu Sans"))
    known = "".join(letter if font.get_char_index(ord(letter)) else "□" for letter in one_line(name))
    return wrapped(known, width)


def figure_of_lines(names: Sequence[str], height: float, *, panels: int = 1) -> Figure:
    """A figure for curves with names at their ends. Its panels are stacked, each at least ``height`` inches high."""
    n_lines = sum(drawable(name, 18).count("\n") + 1 for name in names)
    return Figure((WIDTH, round(0.05 + panels * max(height, 0.5 + 0.13 * n_lines), 2)), layout="constrained")


def drawing(key: str, figure: Figure, said: Sequence[str]) -> Drawing:
    """A finished figure, with its content in words."""
    return Drawing(key, f"{'; '.join(map(one_line, said))}.", figure)
