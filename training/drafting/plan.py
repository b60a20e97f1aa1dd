"""What a drafted scenario says beside its file, before anything is measured."""

from __future__ import annotations

import re

import numpy as np

from ...envs.data import Dataset
from .people import People, propose, rarest
from .sheet import Sheet
from .sizes import LOTS_EACH, PRINCIPALS, ROUNDS, Sizes
from .table import Opened

_RARE = 0.02
"""A column of 0 and 1 in which fewer rows than this share differ from the others is not for the model."""
_ALIKE = (0.01, 0.5)
"""Rows that look alike are dropped if they are between these shares of all rows."""
_LEFT_BY_SITES = 0.3
"""A column is taken for the sites by its name only if the largest levels leave at most this share of the rows to nobody."""
_SITE_ROWS, _KIND_ROWS = 100, 20
_SHOWN = 10


def plan(table: Opened, sheet: Sheet) -> People:
    """Put a cooperative on the table onto the sheet.

    Args:
        table: The table.
        sheet: Where its file stands already.

    Returns:
        Whom the values protect.
    """
    data, told = table.dataset, table.told
    site, site_why, n_sites = _site(table)
    asked = table.wishes.principals
    principals = asked or (n_sites if site and 3 <= n_sites < PRINCIPALS else PRINCIPALS)
    in_words, numbers = ([one.name for one in table.protected if one.in_words is words] for words in (True, False))
    whom = propose(data, in_words, numbers, most=principals)

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", table.path.name.split(".")[0]).strip("-._")[:50]
    of_members = "as it was asked for" if asked else f"one for each level of {site}" if principals == n_sites else "the default of drafts"
    holders = max(1, principals // (len(whom.values) + 1))
    rest = dict(sheet.settings)  # the file comes after what the whole is about
    sheet.settings.clear()
    sheet.put("name", name or "table", "from the file's name")
    description = _description(table, whom, principals, holders)
    sheet.put("description", description, "what is at stake, and for whom: yours to write")
    sheet.put("principals", principals, f"members of the cooperative, with a proxy each: {of_members}")
    sheet.put("horizon", ROUNDS, "rounds of an episode: the default of drafts")
    sheet.settings |= rest

    _put_splits(data, whom, sheet, told)
    _put_lots(table, principals, site, site_why, sheet)
    sheet.put("model", {"kind": "softmax"}, "softmax regression, the simplest model")
    sheet.put("start", {"steps": 3, "lr": 0.3}, "")
    sheet.put("substrate", {"kind": "fedavg", "local_lr": 0.25, "local_steps": 1}, "")
    weights = "a lot's weight is its share of all data, so that who withholds it changes nothing for the others"
    sheet.put("weights", "fixed", weights)
    if whom.values:
        sheet.say("values", "what somebody protects, as losses of the shared model")
        for value, settings in whom.values.items():
            sheet.put(f"values.{value}", settings, whom.why[value])
        profiles = [{"holders": holders, "tolerances": {value: 0.05}, "limits": {value: 0.05}} for value in whom.values]
        sheet.put("profiles", profiles, "")
        for i, value in enumerate(whom.values):
            sheet.say(f"profiles.{i}", f"{holders} of {principals} principals protect {value}")
        vetoes = "an update is screened out if it would harm what any holder of a profile protects; the guard watches the round's sum"
        sheet.put("screening", {"governance": "unanimous", "guard": True}, vetoes)
    sheet.say("reward", "from credit to reward")
    sheet.put("reward.scale", "auto", "a good episode is worth N·T reward units")
    sheet.put("reward.contribution_cost", 0.15, "")
    if whom.values:
        fine = "fine for contributing an update that violates the own principal's profile: the default"
        sheet.put("reward.violation_penalty", 0.1, fine)
    return whom


def _put_splits(data: Dataset, whom: People, sheet: Sheet, told: list[str]) -> None:
    """How the rows are split, and which columns the model sees."""
    n_rows = len(data.labels)
    if (seen := _features(data)) is not None:
        known = {*seen}
        unseen = [feature for feature in data.feature_names if feature not in known]
        shown = ", ".join(unseen[:_SHOWN]) + (f" and {len(unseen) - _SHOWN} more" if len(unseen) > _SHOWN else "")
        told.append(
            f"{len(unseen)} of {len(data.feature_names)} columns after coding are the same in nearly every row, so the model does not see "
            f"them: {shown}"
        )
        why = f"Left out: those of 0 and 1 in which fewer than {_RARE:.0%} of the rows differ; standardised, these would be huge"
        sheet.put("data.columns", seen, f"what the model sees. {why}")
    sheet.put("data.scaling", "standardise", "columns get mean 0 and deviation 1 on the train pool, so that one learning rate fits all")
    alike = n_rows - len(np.unique(data.features, axis=0))
    if _ALIKE[0] * n_rows < alike < _ALIKE[1] * n_rows:
        why = f"{alike:,} rows have the same features as another: only the first is used, so that no two splits hold one"
        sheet.put("data.duplicates", "drop", why)
        n_rows -= alike
    size = sizes_of(data, n_rows)
    sheet.put("data.public_rows", size.public, "")
    sheet.put("data.validation", {"rows": size.validation}, "rows on which the utility, and credit, are computed: a tenth, 30 to 400")
    sheet.put("data.test", {"rows": size.test}, "rows that credit never uses: a fifth, 40 to 1,700")
    if size.train is not None:
        sheet.put("data.train_rows", size.train, "most rows of the pool that lots are drawn from, so that a reset is fast")
    if whom.values:
        why = "rows of each stratum of a value's probe set: as many as the smallest stratum can spare, at most 100"
        sheet.put("data.probe_rows", whom.probe_rows, why)
    if whom.groups:
        sheet.say("data.groups", "people that values protect")
    for group, settings in whom.groups.items():
        sheet.put(f"data.groups.{group}", settings, whom.why[group])


def _put_lots(table: Opened, principals: int, site: str | None, site_why: str, sheet: Sheet) -> None:
    """How principals' data is drawn."""
    data = table.dataset
    sheet.say("lots", "how principals' private data is drawn")
    sheet.put("lots.per_principal", LOTS_EACH, "lots of each principal: the default of drafts")
    why = "rows of a lot: 24, or enough for three of the rarest class, at most 60; fewer in a small table"
    sheet.put("lots.rows", sizes_of(data, len(data.labels)).lot, why)
    if site is not None:
        sheet.put("lots.sites", {"attribute": site}, f"each principal holds rows of its own: {site_why}")
    if (strata := _strata(table, principals, site)) is not None:
        sheet.put("lots.strata", strata, "lots differ in their shares of these people too, as they do in their shares of the classes")
    mixture = {"kind": "logistic_normal", "prevalence": "natural", "site_deviation": 0.5, "lot_deviation": 1.0}
    sheet.put("lots.mixture", mixture, "how classes' shares differ from site to site and lot to lot, in log odds: the default of drafts")
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    classes = [data.class_names[i] for i in np.argsort(-counts, kind="stable")]
    pairs = [list(classes[i : i + 2]) for i in range(0, len(classes) - 1, 2)]
    shown = ", ".join(f"{a!r} and {b!r}" for a, b in pairs[:3]) + (", …" if len(pairs) > 3 else "")
    why = f"in half of the lots 70 % of the labels are swapped between {shown}, the most frequent classes in pairs"
    sheet.put("lots.corruption", {"share": 0.5, "rate": 0.7, "pairs": pairs}, f"{why}. An assumption: nothing in the table says so")


def sizes_of(data: Dataset, n_rows: int) -> Sizes:
    """Sizes for so many rows of the data."""
    return Sizes.of(n_rows, float((data.labels == rarest(data)).mean()), len(data.class_names))


def _site(table: Opened) -> tuple[str | None, str, int]:
    """The attribute whose levels are sites, why, and how many of its levels have enough rows."""
    wanted = next((one for one in table.guesses if one.role == "site"), None)
    if wanted is None:
        return None, "", 0
    words = table.dataset.attribute(wanted.name)
    counts = [int((words == level).sum()) for level in table.dataset.levels(wanted.name)]
    n_large = sum(count >= _SITE_ROWS for count in counts)
    left = 1 - sum(counts[: table.wishes.principals or PRINCIPALS]) / len(words)
    if table.wishes.sites is None and (n_large < 2 or left > _LEFT_BY_SITES):
        table.told.append(f"{wanted.name} does not make the sites: {left:.0%} of the rows would be nobody's")
        return None, "", 0
    rest = f"; {left:.0%} of the rows are of other levels, and nobody's" if left > 0 else ""
    return wanted.name, f"those of a level of {wanted.name} ({wanted.why}){rest}", n_large


def _strata(table: Opened, principals: int, site: str | None) -> str | None:
    """The first protected attribute of two to four levels, each with enough rows of each class at every site."""
    data = table.dataset
    everywhere = np.zeros(len(data.labels), dtype=np.int64)
    if site is not None:
        levels = data.levels(site)[:principals]
        everywhere = np.array([levels.index(word) if word in levels else -1 for word in data.attribute(site).tolist()])
    for one in table.protected:
        if not one.in_words or not 2 <= one.n_levels <= 4 or one.column.missing.any():
            continue
        _, stratum = np.unique(data.attribute(one.name), return_inverse=True)
        kinds = np.stack([everywhere, stratum, data.labels])[:, everywhere >= 0]  # (3, n)
        sizes = kinds.max(axis=1) + 1
        if np.bincount(np.ravel_multi_index(tuple(kinds), tuple(sizes)), minlength=int(sizes.prod())).min() >= _KIND_ROWS:
            return one.name
    return None


def _features(data: Dataset) -> list[str] | None:
    """The columns that the model sees, if some are left out."""
    seen = []
    for j, name in enumerate(data.feature_names):
        column = data.features[:, j]
        share = float(column.mean()) if np.isin(column, (0, 1)).all() else 0.5
        seen += [name] if _RARE <= share <= 1 - _RARE else []
    return seen if seen and len(seen) < len(data.feature_names) else None


def _description(table: Opened, whom: People, principals: int, holders: int) -> str:
    """The scenario in words."""
    words = [f"{principals} principals improve a shared model that predicts {table.wishes.label} from the table {table.path.name}."]
    for value in whom.values.values():
        match value["kind"]:
            case "miss_rate":
                what = f"more of class {value['label']} missed"
            case "group_loss":
                what = f"the model get worse for the group {value['group']}"
            case _:
                what = f"the scores of the group {value['group']} move further from those of all others"
        words.append(f"{'One' if holders == 1 else holders} of them will not have {what}.")
    words.append("In half of the lots most labels are wrong.")
    return " ".join(words)
