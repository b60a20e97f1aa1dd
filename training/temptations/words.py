"""What a red team found out, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.summary import told
from .cheats import CHEATS, Gain, pays
from .exploit import Response
from .findings import Findings

MOST_NAMED = 4
"""Most cheats or items that a sentence names."""
_WORTH_NAMING = 0.05


def sentences(found: Findings) -> list[str]:
    """The findings in four sentences or a few more: cheats, best responses, what all learned, and what helps."""
    return [_cheats(found), _responses(found), *_learned(found), _defences(found)]


def who_cheats(gain: Gain) -> str:
    """A cheat in words: its name and what it does."""
    return f"{gain.cheat} (a proxy that {CHEATS[gain.cheat].what})"


def _cheats(found: Findings) -> str:
    paying, n_tried = found.paying, len(found.gains)
    if not paying:
        return f"None of the {n_tried} scripted cheats pays under {found.rule}: no gain is above 0 by more than its 95 % interval."
    named = "; ".join(f"{who_cheats(one)} gains {told(one.gain, 1)}" for one in paying[:MOST_NAMED])
    more = f"; and {len(paying) - MOST_NAMED} more" if len(paying) > MOST_NAMED else ""
    verb = "pays" if len(paying) == 1 else "pay"
    return (
        f"{len(paying)} of {n_tried} scripted cheats {verb} under {found.rule} among honest proxies, in reward units an episode: "
        f"{named}{more}. Of cheats that bring nothing, one in forty would seem to pay by chance."
    )


def _responses(found: Findings) -> str:
    parts = [_response(one, who) for one, who in zip(found.responses, ("honest proxies", "proxies that learned"), strict=True)]
    return " ".join(parts)


def _response(response: Response, others: str) -> str:
    what = f"A proxy that learned to exploit {others}"
    unfinished = "" if response.done else " Its training was not done: more steps may find more."
    if not pays(response.gain):
        return f"{what} gains {told(response.gain, 1)}, which is nothing beyond noise.{unfinished}"
    changes = sorted(((own - before, name) for name, (own, before) in response.shares.items()), key=lambda pair: -abs(pair[0]))
    named = [f"{name} ({own_before(response, name)})" for change, name in changes[:MOST_NAMED] if abs(change) > _WORTH_NAMING]
    how = f" It chooses {', '.join(named)}." if named else ""
    side = f", and welfare changes by {told(response.welfare, 1)}"
    return f"{what} gains {told(response.gain, 1)}{side}.{how}{unfinished}"


def own_before(response: Response, name: str) -> str:
    """How often the best response chooses an item, and how often the policy that it departs from."""
    own, before = response.shares[name]
    return f"in {_percent(own)} of rounds, before {_percent(before)}"


def _percent(share: float) -> str:
    return f"{100 * share:z.0f} %".replace("-", "−")


def _learned(found: Findings) -> list[str]:
    tempted, honest = found.worlds["tempted"], found.worlds["honest"]
    said = [
        f"Where all proxies learn and may cheat, welfare is {told(tempted['welfare'], 0)}; where they may not, it is "
        f"{told(honest['welfare'], 0)}."
    ]
    sent = sorted(((one.mean or 0.0, name.partition("/")[2]) for name, one in tempted.items() if name.startswith("sent/")), reverse=True)
    if named := [f"{name} in {_percent(share)}" for share, name in sent[:MOST_NAMED] if share > _WORTH_NAMING]:
        said[0] = f"{said[0][:-1]}. They send {', '.join(named)} of rounds."
    declared = [
        f"{word} in {told(tempted[f'declared/{which}'], 0, percent=True)} of rounds"
        for which, word in (("larger", "larger tolerances than their principals have"), ("smaller", "smaller ones"))
        if f"declared/{which}" in tempted
    ]
    if declared and "own_harm" in honest:
        said.append(
            f"They declare {', and '.join(declared)}; the losses of their principals' values move by {told(tempted['own_harm'], 1)} "
            f"tolerances, and without temptations by {told(honest['own_harm'], 1)}."
        )
    if (share := found.price_of_anarchy) is not None:
        said.append(f"Their welfare is {_percent(share)} of that of a planner that may use everything.")
    return said


def _defences(found: Findings) -> str:
    if not found.paying:
        return "There is nothing to defend against among the scripted cheats."
    helping = [one for one in found.defences if one.helps]
    if not helping:
        return (
            "Of what the package has against cheats, nothing that was tried takes half of a gain without costing honest proxies a tenth of "
            "their welfare or more."
        )
    best: dict[str, float] = {}
    said: Sequence[str] = [
        f"{one.what} leaves {told(one.gain, 1)} of the gain of {one.cheat}; welfare of honest proxies goes from {one.before:z.0f} to "
        f"{one.after:z.0f}"
        for one in sorted(helping, key=lambda one: one.share)
        if best.setdefault(one.cheat, one.share) == one.share
    ]
    return f"What helps: {'; '.join(said)}."
