"""Views of an engine: a text table and a picture of the round that was just played.

Both functions only read what the engine has recorded. They draw no random numbers and change nothing. Principals are named by their
numbers: ``proxy_i`` acts for principal i.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..text import one_line, shortened
from .engine import Engine
from .outcome import deadlock, in_short, rises, rises_in_words, strictest_limits, used_up
from .records import RoundResult
from .screening.bargaining import explain
from .screening.profiles import Profile

_UNITS = {"neg_log_loss": "nats", "accuracy": "share correct"}
_UNDECIDED, _WITHHELD, _ADMITTED, _SCREENED, _MENDED, _CROWDED = range(6)
_MEANINGS = ("not chosen yet", "withheld", "admitted", "screened out", "mended: that share of its length is admitted", "found no place")
_LETTERS = ("?", "·", "A", "X", "M", "N")
_MARKS = ("?", "–", "✓", "×", "≈", "○")
_CELLS = (
    ("#ffffff", "", "#b0b0b0"),
    ("#ffffff", "", "#b0b0b0"),
    ("#0072B2", "", "#ffffff"),
    ("#fbe3d0", "////", "#e8a878"),
    ("#cfe6f5", "", "#0072B2"),
    ("#ffffff", "", "#0072B2"),
)
"""Face, hatch and edge of a lot's cell, by status."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart. Their yellow is left out: it is faint on white."""
_DASHES = ("-", "--", "-.", ":")
_WIDTH = 110
"""Where lines of text end, if they can."""
_NO_CHANGE = 1e-5
"""Share of their size, or of 1, by which curves may differ in all without showing it."""
_RISES_TOLD = 4
"""Largest number of rises in the picture's headline: those of the losses that rose most."""
_MOVES_TOLD = 6
"""Largest number of a negotiation's moves that the text lists; ``proxycoop audit`` lists all."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")


@dataclass(frozen=True)
class _View:
    """One environment's episode so far. There are N agents, K lots each, M values, and t rounds were played."""

    title: str
    round: str
    result: RoundResult | None
    verdict: str  # about the step that was applied
    risen: dict[str, float]  # by how much losses that profiles watch have risen since the episode's start
    used: dict[str, float]  # how much of the strictest limit on each limited value is used up
    limits: list[float]  # (M,), the strictest limit on the rise of each value's loss; infinite where there is none
    deadlock: str  # at the episode's end, if nothing passed
    unit: str
    values: list[str]
    profiles: list[str]
    items: list[str]  # (K,), numbers of the lots, and after them names of the forged updates: K counts both
    pulled: list[list[str]]  # (N, …), names of the levers that each proxy pulled
    gone: list[bool]  # (N,), who has left
    standing: list[str]  # who declared other tolerances in the round than its principal has, and who has left
    status: NDArray[np.int64]  # (N, K)
    kept: NDArray[np.float64]  # (N, K), norm of what was admitted over the update's norm
    blockers: list[list[list[int]]]  # (N, K), for each lot the principals who block it
    bargain: list[str]  # how a negotiation went, if there was one
    earned: list[list[str]]  # (N, K), what each admitted lot earned, in reward units, if the rule credits single lots
    utility: NDArray[np.float64]  # (t + 1,), in the utility's unit
    credit: NDArray[np.float64]  # (t + 1, N), cumulative, in reward units
    losses: NDArray[np.float64]  # (t + 1, M)
    payouts: list[list[str]]  # (N, 2), of this round and of the episode, if there is money
    paid: NDArray[np.float64]  # (t + 1, N), cumulative, in major units; (t + 1, 0) without money
    accounts: list[str]  # the cooperative's money, in words
    currency: str

    @classmethod
    def of(cls, engine: Engine, e: int) -> _View:
        e = _checked(engine, e)
        history, last = engine.history, engine.history[-1] if engine.history else None
        n_updates = engine.items.n_updates
        status, verdict, negotiated = np.full((engine.num_agents, n_updates), _UNDECIDED), "", list[str]()
        kept = np.ones(status.shape)
        blockers: list[list[list[int]]] = [[[] for _ in range(n_updates)] for _ in range(engine.num_agents)]
        if last is not None:
            admitted, contributed = (lots[e].cpu().numpy() for lots in (last.admitted, last.contributed))
            status = np.where(admitted, _ADMITTED, np.where(contributed, _SCREENED, _WITHHELD))
            kept = last.kept[e].double().cpu().numpy()
            status = np.where((status == _ADMITTED) & (kept < 1), _MENDED, status)
            if last.passed is not None:
                status = np.where(last.passed[e].cpu().numpy() & ~admitted, _CROWDED, status)
            if last.bargain is not None:
                lines = explain(last.bargain, e, [f"proxy_{i}" for i in range(engine.num_agents)], list(engine.values)).splitlines()
                more = len(lines) - 2 - _MOVES_TOLD
                negotiated = [*map(one_line, lines[: 1 + _MOVES_TOLD]), *[f"makes {more} moves more"] * (more > 0), one_line(lines[-1])]
            for i, k, j in last.blocked_by[e].nonzero().tolist():
                blockers[i][k].append(j)
            guard = f" · guard γ = {last.gamma[e].item():.3f}" if engine.scenario.screening.guard else ""
            broken = ["VIOLATES a profile"] * bool(last.violated[e]) + ["uses FORBIDDEN data"] * bool(last.forbidden_used[e])
            verdict = (" and ".join(broken) or "within every profile") + guard
        earned = [[""] * n_updates for _ in range(engine.num_agents)]
        if last is not None and last.lot_credit is not None:
            for i, k in last.admitted[e].nonzero().tolist():
                earned[i][k] = f"{engine.reward_scale * last.lot_credit[e, i, k].item():+z.2f}"
        credit = torch.stack([engine.theta.new_zeros(engine.num_agents), *(engine.reward_scale * result.credit[e] for result in history)])
        payouts, paid, accounts, currency = _money(engine, e)
        where = f" · environment {e} of {engine.num_envs}" * (engine.num_envs > 1)
        return cls(
            title=one_line(f"{engine.scenario.name} · credit rule: {engine.rule_name}{where}"),
            round=f"round {engine.t}/{engine.horizon}" + ("" if history else " (start of the episode)"),
            result=last,
            verdict=verdict,
            risen=rises(engine, e) if last is not None else {},
            used=used_up(engine, e),
            limits=strictest_limits(engine)[e].tolist(),
            deadlock=deadlock(engine, e) if last is not None and engine.t == engine.horizon else "",
            unit=_UNITS[engine.scenario.utility],
            values=[one_line(name) for name in engine.values],
            profiles=[_profile(engine, e, i) for i in range(engine.num_agents)],
            items=[*map(str, range(engine.num_lots)), *engine.items.names[: n_updates - engine.num_lots]],
            pulled=_pulled(engine, e),
            gone=engine.standing.gone[e].tolist(),
            standing=_standing(engine, e),
            status=status,
            kept=kept,
            blockers=blockers,
            bargain=negotiated,
            earned=earned,
            utility=np.array([engine.initial_utility[e].item(), *(result.utility[e].item() for result in history)]),
            credit=credit.double().cumsum(dim=0).cpu().numpy(),
            losses=torch.stack([engine.initial_value_losses[e], *(result.value_losses[e] for result in history)]).double().cpu().numpy(),
            payouts=payouts,
            paid=paid,
            accounts=accounts,
            currency=currency,
        )


def _checked(engine: Engine, environment: int) -> int:
    """The index of an environment, if there is such a one."""
    if not 0 <= environment < engine.num_envs:
        raise ValueError(f"environment={environment}: must be from 0 to {engine.num_envs - 1}")
    return environment


def _pulled(engine: Engine, e: int) -> list[list[str]]:
    """Names of the levers that each proxy pulled in the last round."""
    last = engine.history[-1].pulled if engine.history else None
    levers = engine.items.names[len(engine.items.names) - engine.items.n_levers :]
    rows = [[False] * len(levers)] * engine.num_agents if last is None else last[e].tolist()
    return [[name for name, one in zip(levers, row, strict=True) if one] for row in rows]


def _money(engine: Engine, e: int) -> tuple[list[list[str]], NDArray[np.float64], list[str], str]:
    """Payouts as text, payments so far, the accounts in words, and the currency. All are empty if there is no money."""
    treasury, history = engine.treasury, engine.history
    if treasury is None:
        return [], np.zeros((len(history) + 1, 0)), [], ""
    money = treasury.terms.money
    nothing = torch.zeros(engine.num_agents, dtype=torch.int64)
    each = torch.stack([nothing, *(result.payouts[e].cpu() for result in history if result.payouts is not None)])
    revenue = [int(result.revenue[e]) for result in history if result.revenue is not None]
    last = [money.plain(payout) if history else "-" for payout in each[-1].tolist()]
    payouts = [[one, money.plain(total)] for one, total in zip(last, each.sum(dim=0).tolist(), strict=True)]
    so_far = {"paid": int(each.sum()), "waiting": treasury.waiting[e], "in reserve": treasury.accounts.reserve[e]}
    accounts = [f"revenue {money.format(revenue[-1])}" if revenue else "no revenue yet"]
    accounts[0] += f", {money.format(sum(revenue))} in all: {', '.join(f'{money.plain(m)} {what}' for what, m in so_far.items())}"
    return payouts, each.cumsum(dim=0).double().numpy() / 10**money.exponent, accounts, money.code


def render_text(engine: Engine, environment: int = 0) -> str:
    """The round just played, as a table of plain text. Before the first round: the start of the episode.

    The table has one row per proxy. Each lot is a symbol; the last line of the text explains the symbols. After the symbol of an admitted
    lot stands what it earned, if the rule credits single lots. ``M43%`` is a lot whose update the filter changed, so that 43 % of its norm
    was admitted. ``1:0,4-6`` says that lot 1 was screened out, or changed by the filter, and is inadmissible to principals 0, 4, 5 and 6.
    ``1:nobody`` says that the bargain left out lot 1, although nobody objects to it alone.

    Below the verdict on the applied step stands by how much each loss that a profile watches has risen since the episode's start: profiles
    limit single updates, and not the sum of the steps. At the end of an episode in which nothing passed, the text says so and what helps.

    Where only some proxies are present in a round, a few lines take the place of the table.

    Credit is given for this round and in total, in reward units. If there is a settlement, so are payouts, in the currency's major units.

    Args:
        engine: The engine; it is only read.
        environment: Index of the environment to show.

    Returns:
        The text.

    Raises:
        RuntimeError: Before the engine's first reset.
        ValueError: If there is no such environment.
    """
    engine.require_begun("render")
    if engine.attendance is not None:
        return in_short(engine, _checked(engine, environment))
    e, view = environment, _View.of(engine, environment)
    result = view.result
    mended = bool((view.status == _MENDED).any())
    money = [f"payout, {view.currency}", "in all"] if view.payouts else []
    rows = [["proxy", "protects", "lots", "credit", "total", "cost", *money, f"screened out{' or mended' * mended}, lot:inadmissible to"]]
    for i, total in enumerate(view.credit[-1]):
        paid, cost = "-", "-"
        if result is not None:
            paid, cost = f"{view.credit[-1, i] - view.credit[-2, i]:+z.2f}", f"{result.cost[e, i].item():.2f}"
        kept = [f"{share:.0%}" if status == _MENDED else "" for status, share in zip(view.status[i], view.kept[i], strict=True)]
        lots = " ".join(_LETTERS[status] + part + earned for status, part, earned in zip(view.status[i], kept, view.earned[i], strict=True))
        screened = np.flatnonzero(np.isin(view.status[i], (_SCREENED, _MENDED)))
        out = " ".join(f"{view.items[k]}:{','.join(_ranges(view.blockers[i][k])) or 'nobody'}" for k in screened)
        rows.append([f"proxy_{i}", view.profiles[i], lots, paid, f"{total:+z.2f}", cost, *(view.payouts[i] if view.payouts else []), out])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    others = sum(widths) - widths[1] + 2 * (len(widths) - 1)
    widths[1] = min(widths[1], max(_WIDTH - others, 24))  # long profiles are cut where the table would be wider
    table = []
    for row, profile in zip(rows, shortened([row[1] for row in rows], widths[1]), strict=True):
        cells = zip([row[0], profile, *row[2:]], f"<<<>>>{'>' * len(money)}<", widths, strict=True)
        table.append("  ".join(f"{cell:{align}{width}}" for cell, align, width in cells).rstrip())

    names = [f"utility, {view.unit}", *(f"loss of {name}" for name in shortened(view.values, 40))]
    outcome, pad = [], max(map(len, names))
    for name, series in zip(names, np.column_stack([view.utility, view.losses]).T, strict=True):
        before, change = ("", "") if result is None else (f"{series[-2]:8.4f} → ", f"  ({series[-1] - series[-2]:+z.4f})")
        outcome.append(f"{name:<{pad}}  {before}{series[-1]:8.4f}{change}")
    if result is not None:
        gain = result.gain[e].item()
        outcome.append(f"gain over contributing nothing: {gain:+z.4f} ({view.unit}), {engine.reward_scale * gain:+z.2f} in reward units")
        outcome.append(f"applied step: {view.verdict}")
        outcome += textwrap.wrap(rises_in_words(view.risen, view.used), _WIDTH)
        outcome += [f"the bargain {text}" for text in view.bargain]
    outcome += textwrap.wrap(_levers_in_words(view), _WIDTH)
    outcome += textwrap.wrap(_payments_in_words(result, e), _WIDTH)
    outcome += [line for said in view.standing for line in textwrap.wrap(said, _WIDTH)]
    outcome += view.accounts
    outcome += textwrap.wrap(view.deadlock, _WIDTH)
    after = "A or M" if mended else "A"
    numbers = f"(credit, total, cost, and after {after} what the lot earned: reward units)" if any(map(any, view.earned)) else ""
    shown = [s for s in range(len(_LETTERS)) if s not in (_MENDED, _CROWDED) or (view.status == s).any()]
    symbols = [f"{_LETTERS[s]} {_MEANINGS[s]}" for s in shown]
    legend = "  ".join(symbols) + ("\n" if mended else "  ") + (numbers or "(credit, total, cost: reward units)")
    if forged := [name for name in view.items if not name.isdigit()]:
        legend += f"\nafter the {len(view.items) - len(forged)} lots: {', '.join(forged)}"
    return "\n".join([f"{view.title} · {view.round}", "", *table, "", *outcome, "", legend])


def _levers_in_words(view: _View) -> str:
    """Who pulled which levers; empty if nobody did."""
    who = [f"proxy_{i} {', '.join(names)}" for i, names in enumerate(view.pulled) if names]
    return f"pulled: {'; '.join(who)}" if who else ""


def _payments_in_words(result: RoundResult | None, e: int) -> str:
    """Who paid how much for places, less what came back; empty if nobody did."""
    if result is None or result.payments is None:
        return ""
    paid = [f"proxy_{i} {payment:.2f}" for i, payment in enumerate(result.payments[e].tolist()) if abs(payment) >= 0.005]
    return f"paid for places, less what came back, in reward units: {', '.join(paid).replace('-', '−')}" if paid else ""


def render_picture(engine: Engine, environment: int = 0, *, width: int = 960, height: int = 640) -> NDArray[np.uint8]:
    """The episode so far, as a picture.

    On the left it shows the lots of the last round: who offered what, and what was screened out. On the right it shows curves over the
    rounds: utility, cumulative credit, payments if there are any, and the changes of the value losses.

    Args:
        engine: The engine; it is only read.
        environment: Index of the environment to show.
        width: Width in pixels, at least 240.
        height: Height in pixels, at least 160. Text scales with the picture.

    Returns:
        uint8 ``(height, width, 3)``: red, green and blue, from 0 to 255.

    Raises:
        RuntimeError: Before the engine's first reset.
        ValueError: If there is no such environment, the width or height is too small, or only some proxies are present in a round.
    """
    engine.require_begun("render")
    engine.scenario.require_everybody("a picture of each proxy's lots")
    view = _View.of(engine, environment)
    if width < 240 or height < 160:
        raise ValueError(f"width={width}, height={height}: must be at least 240 and 160 pixels")
    scale = min(width / 960, height / 640)  # the layout below is for a picture of at least 960 × 640
    # half a pixel is added, because the canvas rounds down
    figure = Figure(figsize=((width + 0.5) / scale / 100, (height + 0.5) / scale / 100), dpi=100 * scale, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    w, h = width / scale, height / scale

    def axes(left: float, top: float, right: float, bottom: float) -> Axes:
        return figure.add_axes((left / w, 1 - bottom / h, (right - left) / w, (bottom - top) / h))

    headline = f"{view.round} · utility {view.utility[-1]:.4f} {view.unit}"
    if view.result is not None:
        headline += f" ({view.utility[-1] - view.utility[-2]:+z.4f}) · applied step: {view.verdict}"
    style: dict[str, Any] = {"parse_math": False, "va": "top"}
    figure.text(20 / w, 1 - 14 / h, shortened([view.title], 112)[0], fontsize=13 if len(view.title) < 80 else 9, weight="bold", **style)
    figure.text(20 / w, 1 - 40 / h, headline, fontsize=9.5, color="#444444", **style)
    figure.text(20 / w, 1 - 57 / h, _below_headline(view), fontsize=9.5, color="#a03c00" if view.deadlock else "#444444", **style)

    (n_agents, n_lots), middle = view.status.shape, 0.445 * w  # lots on the left, curves on the right
    cell = min((middle - 130) / n_lots, 76), min((h - 190) / n_agents, 62)
    bottom = 114 + cell[1] * n_agents
    figure.text(20 / w, 1 - 78 / h, "Who offered what" + f" in round {engine.t}" * (engine.t > 0), fontsize=10, weight="bold", va="top")
    _draw_lots(axes(130, 114, 130 + cell[0] * n_lots, bottom), view, cell)
    shown = [_UNDECIDED] if view.result is None else [_WITHHELD, _ADMITTED, _SCREENED]
    shown += [s for s in (_MENDED, _CROWDED) if (view.status == s).any()]
    boxes = [Patch(facecolor=face, hatch=hatch, edgecolor=edge) for face, hatch, edge in (_CELLS[s] for s in shown)]
    meanings = [f"{_MARKS[s]} {_MEANINGS[s]}" + ": inadmissible to the principals named" * (s == _SCREENED) for s in shown]
    anchor = (14 / w, 1 - (bottom + 4) / h)
    figure.legend(boxes, meanings, loc="upper left", bbox_to_anchor=anchor, fontsize=8, frameon=False, handlelength=2.4, handleheight=1)

    n_panels = 2 + bool(view.payouts) + bool(view.values)
    most_named = 12 if n_panels < 4 else 8
    left, right, step = middle + 84, w - 134, (h - 104) / n_panels
    panels = [axes(left, 98 + step * i, right, 98 + step * (i + 1) - 46) for i in range(n_panels)]
    _draw_curves(panels[0], engine.horizon, view.utility[:, None], [], f"utility ({view.unit})", "Utility of the shared model")
    proxies, values = [f"proxy_{i}" for i in range(n_agents)], shortened(view.values, 14)
    _draw_curves(panels[1], engine.horizon, view.credit, proxies, "credit (reward units)", "Cumulative credit", most_named)
    if view.payouts:
        _draw_curves(panels[2], engine.horizon, view.paid, proxies, f"paid ({view.currency})", "Paid so far", most_named)
    if values:
        changes = view.losses - view.losses[0]
        limited = any(map(math.isfinite, view.limits))
        title = f"Change of value losses ({'limits dotted' if limited else 'lower is better'})"
        _draw_curves(panels[-1], engine.horizon, changes, values, "since start (own unit)", title, most_named, view.limits)
    panels[-1].set_xlabel("rounds played", fontsize=8.5, labelpad=2)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :width, :3].copy()


def _below_headline(view: _View) -> str:
    """The picture's second line: that nothing passed, or else the largest rises of watched losses since the episode's start."""
    if view.deadlock:
        return view.deadlock.partition(". ")[0]
    names = sorted(view.risen, key=lambda name: -view.risen[name])
    told = dict(zip(shortened(names[:_RISES_TOLD], 24), [view.risen[name] for name in names], strict=False))
    more = len(names) - len(told)
    used = dict(zip(shortened(names[:_RISES_TOLD], 24), [view.used.get(name) for name in names], strict=False))
    return rises_in_words(told, {name: share for name, share in used.items() if share is not None}) + f" and {more} more" * (more > 0)


def _draw_lots(ax: Axes, view: _View, cell: tuple[float, float]) -> None:
    """The grid of proxies × lots; ``cell`` is the width and height of a lot, in hundredths of an inch."""
    n_agents, n_lots = view.status.shape
    for status, (face, hatch, edge) in enumerate(_CELLS):
        squares = [[(k, i), (k + 1, i), (k + 1, i + 1), (k, i + 1)] for i, k in np.argwhere(view.status == status)]
        ax.add_collection(PolyCollection(squares, facecolor=face, hatch=hatch, edgecolor=edge, linewidth=0.6), autolim=False)
    paper: dict[str, Any] = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}  # behind text on hatching
    for i, k in np.ndindex(n_agents, n_lots):
        status = int(view.status[i, k])
        beside = ",".join(_ranges(view.blockers[i][k])) if status == _SCREENED else view.earned[i][k]
        beside = f"{view.kept[i, k]:.0%}" if status == _MENDED else beside
        text, size = _cell_text(status, beside, *cell)
        colour, background = "white" if status == _ADMITTED else "black", paper if status == _SCREENED and text else None
        ax.text(k + 0.5, i + 0.5, text, ha="center", va="center", fontsize=size, linespacing=1.05, color=colour, bbox=background)
    n_lines = 2 if cell[1] >= 44 else 1  # of 6.5 points, in the lower half of a row
    profiles = [textwrap.fill(text.replace(" in all", "\u00a0in\u00a0all"), 22) for text in shortened(view.profiles, 20 * n_lines)]
    names = [" · ".join([f"proxy_{i}", *pulled, *["left"] * view.gone[i]]) for i, pulled in enumerate(view.pulled)]
    for i in range(0, n_agents, math.ceil(16 / cell[1])):  # label only some rows if they are lower than a line of text
        profile = profiles[i] if cell[1] >= 26 and view.profiles[i] != "-" else ""
        style: dict[str, Any] = {"xy": (0, i + 0.5), "textcoords": "offset points", "ha": "right", "parse_math": False}
        ax.annotate(names[i], xytext=(-5, 1 if profile else 0), va="bottom" if profile else "center", fontsize=8.5, **style)
        ax.annotate(profile, xytext=(-5, -1), va="top", fontsize=6.5, color="#444444", **style)
    ax.set(xlim=(0, n_lots), ylim=(n_agents, 0), yticks=[])
    ax.set_xticks(np.arange(n_lots) + 0.5, [f"lot {name}" if name.isdigit() and cell[0] >= 28 else name for name in view.items])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=2, labelsize=8 if cell[0] >= 40 else 7)
    ax.spines[:].set_edgecolor("#808080")


def _cell_text(status: int, beside: str, width: float, height: float) -> tuple[str, float]:
    """The text of a lot's cell and its font size in points.

    The text is the lot's mark and ``beside``: the principals who block it, what it earned, or how much was admitted. The largest font that
    fits is used. Where there is little room, only one of the two is written, or nothing.
    """
    mark, names = _MARKS[status], beside
    for wording in range(4):
        for size in (11.0, 9.5, 8.5, 7.5, 6.5):  # points of 1/72 inch; a letter is 0.6 as wide, a line 1.1 as high
            n_letters, n_lines = int((width - 5) / (0.6 * size / 0.72)), int((height - 4) / (1.1 * size / 0.72))
            wrapped = re.findall(rf".{{1,{max(n_letters, 1)}}}(?:(?<=,)|$)", names)
            lines = ([f"{mark} {names}".strip()], [mark, *wrapped], wrapped, [mark])[wording]
            complete = wording in (0, 3) or "".join(wrapped) == names != ""
            if complete and max(map(len, lines)) <= n_letters and len(lines) <= n_lines:
                return "\n".join(lines), size
    return "", 6.5


def _draw_curves(
    ax: Axes,
    horizon: int,
    series: NDArray[np.float64],
    names: list[str],
    label: str,
    title: str,
    most_named: int = 12,
    limits: Sequence[float] = (),
) -> None:
    """Draw n curves, ``(t + 1, n)``. They differ in colour, dashes and marker. Of many curves, only the highest and lowest are named.

    A curve's limit, if it has one that is finite, is a dotted line of its colour.
    """
    n = series.shape[1]
    order = np.argsort(-series[-1], kind="stable").tolist()
    few = most_named // 2 - 1
    named = list(range(n)) if n <= most_named else order[:few] + order[-few:]
    ax.plot(series[:, sorted(set(range(n)) - set(named))], color="#c8c8c8", linewidth=0.6)
    lines: list[Line2D] = []
    for j, i in enumerate(named):
        colour, dashes, marker = _COLOURS[j % len(_COLOURS)], _DASHES[j % len(_DASHES)], _MARKERS[j % len(_MARKERS)]
        every = math.ceil(len(series) / 20)
        lines += ax.plot(series[:, i], dashes, color=colour, marker=marker, markersize=4, markevery=every, linewidth=1.4)
        if limits and math.isfinite(limits[i]):
            ax.axhline(limits[i], color=colour, linestyle=":", linewidth=1.2, zorder=1.8)
    ax.set_title(title, loc="left", fontsize=10, weight="bold", pad=5)
    ax.set_ylabel(label, fontsize=8.5 if most_named == 12 else 7)
    ax.yaxis.set_label_coords(-0.56 * ax.figure.dpi / ax.get_window_extent().width, 0.5)
    ax.set_xlim(-0.02 * horizon, 1.02 * horizon)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 4, 5, 10]))
    if np.ptp(series) < _NO_CHANGE * max(1.0, np.abs(series).max()):  # a frame filled by rounding errors would show them as curves
        ax.set_ylim(series.min() - 0.055, series.max() + 0.055)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.tick_params(labelsize=7.5, length=3)
    ax.grid(color="#e4e4e4", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    if not names:
        return
    ax.axhline(0, color="#808080", linewidth=0.8, zorder=1.9)
    texts = [names[i] for i in named]
    if n > len(named):
        lines.insert(few, Line2D([], [], color="#c8c8c8", linewidth=0.6))
        texts.insert(few, f"{n - len(named)} others")
    look: dict[str, Any] = {"frameon": False, "labelspacing": 0.25, "handlelength": 2.6}
    key = ax.legend(lines, ["x"] * len(lines), loc="upper left", bbox_to_anchor=(1.01, 1.06), fontsize=7, **look)
    for entry, text in zip(key.get_texts(), texts, strict=True):  # set now, because a legend leaves out labels that begin with "_"
        entry.set(text=text, parse_math=False)


def profile_in_short(profile: Profile) -> str:
    """A value profile on one line; ``-`` if it is empty.

    It looks like ``eights≤0.36 (≤0.6 in all), nines≤10 %, 0.8·eights−0.6·nines≤0, no scraped, norm≤0.2``. A tolerance is the largest harm
    of one update, in the value's unit or in percent of the value's loss at the round's start. A limit, the largest rise over an episode,
    has "in all" after it. A direction is shown as the weighted sum of harms that must not be above 0.
    """
    of_update = {name: f"{name}≤{limit:.3g}" for name, limit in profile.tolerances.items()}
    of_update |= {name: f"{name}≤{100 * share:.3g} %" for name, share in profile.relative_tolerances.items()}
    in_all = {name: f"≤{limit:.3g} in all" for name, limit in profile.limits.items()}
    in_all |= {name: f"≤{100 * share:.3g} % in all" for name, share in profile.relative_limits.items()}
    parts = [f"{text} ({in_all[name]})" if name in in_all else text for name, text in of_update.items()]
    parts += [f"{name}{text}" for name, text in in_all.items() if name not in of_update]
    parts += [f"{direction_in_short(profile.direction)}≤0"] if profile.direction else []
    parts += [f"no {tag}" for tag in profile.forbidden_tags]
    parts += [f"norm≤{profile.max_norm:.3g}"] if profile.max_norm is not None else []
    return one_line(", ".join(parts) or "-")


def direction_in_short(weights: Mapping[str, float]) -> str:
    """A direction's weights, scaled to unit length, as a sum: ``0.8·eights−0.6·nines``."""
    length = math.hypot(*weights.values())
    terms = [f"{'−' if weight < 0 else '+'}{abs(weight) / length:.2g}·{name}" for name, weight in weights.items() if weight]
    return "".join(terms).removeprefix("+")


def _profile(engine: Engine, e: int, i: int) -> str:
    """A principal's value profile on one line."""
    assert engine.profiles.kind is not None
    kind, profiles = int(engine.profiles.kind[e, i]), engine.scenario.profiles
    return profile_in_short(profiles[kind]) if kind < len(profiles) else "-"


def _standing(engine: Engine, e: int) -> list[str]:
    """Who declared other tolerances in the round than its principal has, and who has left; in words."""
    if not engine.items:
        return []
    said = []
    if len(engine.history) > 1 and (earlier := engine.history[-2].pulled) is not None:
        factors, whose = engine.items.declared(earlier[e, None])[0].tolist(), engine.profiles.tolerates[e].tolist()
        told = [f"proxy_{i} {factor:g} times" for i, (factor, has) in enumerate(zip(factors, whose, strict=True)) if has and factor != 1]
        said += [f"declared, of the own tolerances: {', '.join(told)}"] if told else []
    gone = [f"proxy_{i}" for i in engine.standing.gone[e].nonzero().flatten().tolist()]
    return [*said, *([f"left: {', '.join(gone)}"] if gone else [])]


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Sorted numbers as ranges: 0, 1, 2, 5 become ``["0-2", "5"]``."""
    cuts = [i for i in range(len(numbers) + 1) if i in (0, len(numbers)) or numbers[i] != numbers[i - 1] + 1]
    runs = [numbers[a:b] for a, b in pairwise(cuts)]
    return [part for run in runs for part in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))]
