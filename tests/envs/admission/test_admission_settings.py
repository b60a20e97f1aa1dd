"""Admission as data: names and settings of mechanisms, what is refused, and what mechanisms ask for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from proxycoop.envs.admission import MECHANISMS, Admission, Auction, EqualShares, Lottery, Offers, Shareable, refuse

NONE = Offers(
    candidates=torch.ones(2, 3, 2, dtype=torch.bool),
    gain=None,
    wants=None,
    likeness=None,
    bids=None,
    taken=torch.zeros(2, 3, dtype=torch.long),
    keys=torch.arange(2),
    t=0,
)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_name_stands_for_the_mechanism_with_its_defaults(name: str) -> None:
    by_name, by_kind = Admission(capacity=8, choose=name), Admission(capacity=8, choose={"kind": name})  # type: ignore[arg-type]
    assert by_name == by_kind
    assert by_name.choose.kind == name
    assert Admission.model_validate(by_name.model_dump()) == by_name


def test_settings_of_a_mechanism_are_read() -> None:
    assert Admission.model_validate({"capacity": 3}).choose == Lottery()
    assert Admission.model_validate({"capacity": 3, "choose": {"kind": "shareable", "similarity": 0.8}}).choose == Shareable(similarity=0.8)
    assert Admission(capacity=3, choose=Auction(exponent=1)).choose.exponent == 1  # type: ignore[union-attr]
    approval = {"kind": "equal_shares", "utilities": "approval", "complete": False}
    assert Admission.model_validate({"capacity": 3, "choose": approval}).choose == EqualShares(utilities="approval", complete=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"capacity": 0}, "greater than or equal to 1"),
        ({"capacity": True}, "must be a number, not true or false"),
        (
            {"capacity": 2, "choose": "loterie"},
            r"unknown mechanism 'loterie' \(did you mean 'lottery'\?\): the known ones are lottery, by_gain,",
        ),
        (
            {"capacity": 2, "choose": {"similarity": 0.5}},
            r"must be a name, or have a kind, as in \{kind: lottery\}, one of lottery, by_gain, ",
        ),
        ({"capacity": 2, "choose": 3}, "must be a name, or have a kind"),
        ({"capacity": 2, "choose": {"kind": "shareable", "similarity": 1.5}}, "less than or equal to 1"),
        ({"capacity": 2, "choose": {"kind": "auction", "exponent": -1}}, "greater than or equal to 0"),
        ({"capacity": 2, "choose": {"kind": "auction", "rebate": "all"}}, "'bailey', 'cavallo' or 'none'"),
        ({"capacity": 2, "choose": {"kind": "lottery", "similarity": 1}}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Admission.model_validate(given)


@pytest.mark.parametrize(
    ("choose", "wrong", "message"),
    [
        ("lottery", {"n_updates": 4}, "^capacity=4 leaves a place for each of the 4 updates: make it smaller, or leave admission out$"),
        (
            "by_gain",
            {"has_gain": False},
            "^choose=by_gain needs the utility's gradient, and this utility has none: use utility: neg_log_loss, ",
        ),
        (
            "auction",
            {"has_bids": False},
            r"^choose=auction needs bids, and proxies cannot bid: add conduct.levers: \[{kind: bid, amount: 1}\]$",
        ),
        (
            "turns",
            {"governance": "negotiate"},
            "^governance negotiate chooses among the updates itself: leave admission out, or use another ",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(choose: str, wrong: dict[str, Any], message: str) -> None:
    fine: dict[str, Any] = {"n_updates": 5, "has_gain": True, "has_bids": True, "governance": "unanimous"}
    admission = Admission(capacity=4, choose=choose)  # type: ignore[arg-type]
    refuse(admission, **fine)
    with pytest.raises(ValueError, match=message):
        refuse(admission, **fine | wrong)


@pytest.mark.parametrize("choose", [name for name in MECHANISMS if name not in ("by_gain", "auction")])
def test_mechanisms_that_can_do_without_gains_and_bids_are_not_refused(choose: str) -> None:
    refuse(Admission(capacity=4, choose=choose), n_updates=5, has_gain=False, has_bids=False, governance="own")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_reads_what_it_says_it_needs(name: str) -> None:
    mechanism = Admission(capacity=4, choose=name).choose  # type: ignore[arg-type]
    there = {"gain": torch.rand(2, 3, 2), "wants": torch.rand(2, 3, 3, 2), "likeness": torch.rand(2, 6, 6), "bids": torch.rand(2, 3)}
    all_needs = replace(NONE, **{need: there[need] for need in mechanism.needs})
    assert (mechanism.choose(4, all_needs).admitted.sum(dim=(1, 2)) <= 4).all()
    assert set(mechanism.optional) <= set(mechanism.needs)
    for need in mechanism.needs:
        without = replace(all_needs, **{need: None})  # type: ignore[arg-type]
        if need in mechanism.optional:
            assert (mechanism.choose(4, without).admitted.sum(dim=(1, 2)) == 4).all()
        else:
            with pytest.raises(ValueError, match=f"{need}=None: the mechanism reads it"):
                mechanism.choose(4, without)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("gain", (2, 3), "(2, 3, 2)"),
        ("wants", (2, 3, 2), "(2, 3, 3, 2)"),
        ("likeness", (2, 3, 3), "(2, 6, 6)"),
        ("bids", (2, 3, 2), "(2, 3)"),
        ("taken", (2, 4), "(2, 3)"),
        ("keys", (3,), "(2,)"),
    ],
)
def test_wrong_shapes_are_refused(name: str, shape: tuple[int, ...], wanted: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message follows
        replace(NONE, **{name: torch.zeros(shape)})
    assert str(caught.value) == f"{name} has shape {shape}: must be {wanted}"
    with pytest.raises(ValueError, match=r"^candidates has shape \(2, 3\): must be \(E, N, U\)$"):
        replace(NONE, candidates=torch.ones(2, 3, dtype=torch.bool))
