"""The settings, and what does not go with them."""

from typing import Any

import pytest
from pydantic import ValidationError

from proxycoop.envs.privacy import Privacy


def test_by_default_every_update_is_noised_as_much_as_it_is_long() -> None:
    privacy = Privacy()
    assert (privacy.clip, privacy.noise_multiplier, privacy.noise, privacy.delta) == (1.0, 1.0, "updates", 1e-5)
    assert Privacy(clip=0.2, noise_multiplier=3.0).scale == pytest.approx(0.6)


def test_credit_is_covered_where_updates_are_noised() -> None:
    assert Privacy().covers_credit
    assert not Privacy(noise="step").covers_credit


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Privacy.model_fields.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clip": 0}, "greater than 0"),
        ({"clip": float("inf")}, "finite"),
        ({"noise_multiplier": -0.1}, "greater than or equal to 0"),
        ({"noise_multiplier": True}, "must be a number"),
        ({"noise": "lots"}, "'updates' or 'step'"),
        ({"delta": 0}, "greater than 0"),
        ({"delta": 1}, "less than 1"),
        ({"epsilon": 1}, "Extra inputs"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Privacy(**settings)


@pytest.mark.parametrize("noise", ["updates", "step"])
@pytest.mark.parametrize(
    ("around", "said"),
    [
        ({"holders": 2}, "lots.holders: holders=2: privacy protects one lot, but 2 principals hold the same ones"),
        ({"copied": True}, "conduct.identities: lots: copied offers the same lots under several names"),
        ({"vertical": True}, "privacy: substrate vertical does not go with privacy: every update depends on all lots"),
    ],
)
def test_lots_whose_data_is_in_other_updates_too_are_refused(noise: str, around: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Privacy(noise=noise).check(**around)


@pytest.mark.parametrize(
    ("around", "said"),
    [
        ({"weights": "participants"}, "weights=participants: a lot also changes what the others are divided by; use weights: fixed"),
        ({"aggregator": "median"}, "aggregator.kind=median: a lot may change more than its share; use mean"),
        ({"governance": "negotiate"}, "governance negotiate: a lot also changes which others enter"),
        ({"filter": "project"}, "filter project: what is nearest to an update may be longer than clip; use another filter"),
        ({"limited": True}, "admission: a lot may take another one's place"),
        ({"forgeries": ("twin", "echo", "blend")}, "the forgery blend and echo: it comes from what others sent, without noise"),
    ],
)
def test_steps_that_a_lot_can_change_by_more_than_its_share_are_refused_where_the_step_is_noised(around: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"privacy.noise: noise=step does not go with {said}.*, or use noise: updates"):
        Privacy(noise="step").check(**around)
    Privacy().check(**around)


def test_what_goes_with_privacy_passes() -> None:
    for noise in ("updates", "step"):
        Privacy(noise=noise).check(governance="unanimous", forgeries=("twin", "stale", "boost"))
