"""What a player gains that appears as several, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.games import false_name_gain, held, saturating

VALUES = {name: credit.make(name).values for name in ("shapley", "banzhaf", "loo")}


def all_of(lots):
    """Unanimity: 1 if every lot is there."""
    return lots.all(dim=1).double()


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_gain_of_dealt_lots_on_unanimity_is_the_closed_form(n, k):
    holdings = [range(k), *([lot] for lot in range(k, k + n - 1))]
    gain = {name: false_name_gain(values, all_of, k + n - 1, holdings, 0, [[lot] for lot in range(k)]) for name, values in VALUES.items()}
    assert float(gain["shapley"]) == pytest.approx(k / (n + k - 1) - 1 / n, abs=1e-12)
    assert float(gain["banzhaf"]) == pytest.approx(k / 2 ** (n + k - 2) - 1 / 2 ** (n - 1), abs=1e-12)
    assert float(gain["loo"]) == pytest.approx(k - 1, abs=1e-12)
    assert float(gain["shapley"]) > 0


@pytest.mark.parametrize("n", [2, 3, 6])
def test_gain_of_a_near_twin_on_unanimity_is_the_closed_form(n):
    holdings = [[lot] for lot in range(n)]
    gain = {name: float(false_name_gain(values, all_of, n, holdings, 0, [[0], [0]])) for name, values in VALUES.items()}
    assert gain["shapley"] == pytest.approx(2 / (n * (n + 1)) - 1 / n, abs=1e-12)
    assert gain["banzhaf"] == pytest.approx(0.0, abs=1e-12)
    assert gain["loo"] == pytest.approx(-1.0, abs=1e-12)


def saturates(weights, scale):
    w = torch.tensor(weights, dtype=torch.float64)
    return lambda lots: 1 - (-(lots.double() @ w) / scale).exp()


@pytest.mark.parametrize("weights", [[1.0, 2.0, 0.5, 1.5], [0.2, 0.2, 3.0, -0.5]])
def test_gain_on_a_saturating_game_is_that_of_the_known_values(weights):
    """The first player has the first two lots; before, they are one lot of their weights' sum."""
    scale = 2.0
    before = saturating([weights[0] + weights[1], *weights[2:]], scale)
    dealt = saturating(weights, scale)
    twin = saturating([weights[0] + weights[1], *weights[2:]], scale, [0, 1, 2, 0])
    holdings = [[0, 1], [2], [3]]
    for name, values in VALUES.items():
        if name == "loo":
            total, x = sum(weights), [math.exp(-w / scale) for w in weights]
            left = math.exp(-total / scale)
            alone = [left / one - left for one in x]  # v(N) − v(N without the lot)
            own = left / (x[0] * x[1]) - left
            expected = {"dealt": alone[0] + alone[1] - own, "twin": -own}
        else:
            known = {key: getattr(game, name) for key, game in (("before", before), ("dealt", dealt), ("twin", twin))}
            expected = {
                "dealt": float(known["dealt"][0] + known["dealt"][1] - known["before"][0]),
                "twin": float(known["twin"][0] + known["twin"][3] - known["before"][0]),
            }
        for how, names in (("dealt", [[0], [1]]), ("twin", [[0, 1], [0, 1]])):
            gain = float(false_name_gain(values, saturates(weights, scale), 4, holdings, 0, names))
            assert gain == pytest.approx(expected[how], abs=1e-10)


def test_a_batch_of_games_has_a_gain_each():
    def worth(lots):
        return torch.stack([all_of(lots), saturates([1.0, 1.0, 1.0], 1.0)(lots)])

    gain = false_name_gain(VALUES["shapley"], worth, 3, [[0, 1], [2]], 0, [[0], [1]])
    assert gain.shape == (2,)
    assert float(gain[0]) == pytest.approx(2 / 3 - 1 / 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"holdings": [[0, 1], [7]]}, r"holdings\[1\], lot=7: lots go from 0 to 2"),
        ({"player": 5}, "player=5: players go from 0 to 1"),
        ({"names": []}, "names is empty"),
        ({"names": [[2]]}, "names hold lot 2, which player 0 does not have"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    given = {"holdings": [[0, 1], [2]], "player": 0, "names": [[0], [1]], **arguments}
    with pytest.raises(ValueError, match=said):
        false_name_gain(VALUES["shapley"], all_of, 3, given["holdings"], given["player"], given["names"])


def test_a_game_of_holders_is_the_game_of_their_lots():
    game = held(all_of, 3, [[0, 1], [1, 2], [2]])
    assert game.values()[0].tolist() == [0, 0, 0, 1, 0, 1, 0, 1]
