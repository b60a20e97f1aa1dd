"""The suite that credit.check_rule is passes rules from outside the package, and finds what is wrong with rules that lie."""

import re

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import games
from proxycoop.credit.suite.axioms import AXIOMS, CHECKS

# rules from outside the package


class Fair(credit.GameRule):
    r"""The Shapley value, as somebody else might write it.

    .. math:: c_i = \phi_i(v)
    """

    source = "these tests"
    evaluations = "2^n"
    efficient = True
    symmetric = True
    null_player = True
    max_players = 12

    def cost(self, n_players: int) -> int:
        return 2**n_players

    def divide(self, game: credit.CoalitionGame) -> Tensor:
        return credit.shapley_values(game.values())


class Aligned(credit.CreditRule):
    r"""First-order gain of each agent's own update: no evaluations, no promises.

    .. math:: c_i = \langle \nabla U, \Delta_i \rangle
    """

    source = "these tests"

    def assign(self, round: credit.Round) -> Tensor:
        return torch.einsum("enp,ep->en", round.updates, round.utility_gradient())


class Budgeted(credit.Estimator):
    r"""One random order of joining, declared as what it is.

    .. math:: c_i = \Delta_i(P_i^\pi)
    """

    source = "these tests"
    efficient = True
    null_player = True

    def sample(self, game, budget, generator):
        n = game.n_players
        order = generator.permutation(n).tolist()
        inside = torch.zeros(n, n, dtype=torch.bool)
        for k, i in enumerate(order):
            inside[k:, i] = True
        v = game.value(inside).double()
        paid = torch.empty_like(v)
        paid[:, order] = v.diff(dim=1, prepend=torch.zeros(len(v), 1, dtype=torch.float64))
        return credit.Estimate.exact(paid, n, "one order")


@pytest.mark.parametrize("rule", [Fair, Budgeted, lambda: Budgeted(budget=12), lambda: credit.Normalised(Fair())])
def test_a_rule_from_outside_takes_one_line(rule):
    credit.check_rule(rule)


def test_a_rule_that_reads_the_round_rather_than_the_game_takes_one_line_too():
    # where nothing but updates is paid for, an update of zero is paid nothing, but one that overshoots is paid for nothing
    report = credit.check_rule(Aligned)
    assert "an update that overshoots" in report.axioms["null_player"].witness


def test_a_registered_rule_is_tested_by_name(clean_rules):
    credit.RULES.register("fair")(Fair)
    assert credit.check_rule("fair").rule == "fair"


# rules that lie: the suite would be worth nothing if it let one of them pass

LIARS: list[tuple[list[str], type[credit.CreditRule], str]] = []


def liar(checks: str, message: str):
    """A rule that fails these checks and no others, for the reason that the message tells."""

    def add(rule):
        if rule.__doc__ is None:
            rule.__doc__ = Fair.__doc__
        LIARS.append((checks.split(), rule, message))
        return rule

    return add


@liar("efficient", "declared, but broken in .*credits sum to .*, but v\\(N\\) = ")
class Stingy(Fair):
    def divide(self, game):
        return super().divide(game) * (1 - 1e-7)


@liar("efficient", "among 11 players")
class EfficientAmongFew(Fair):
    def divide(self, game):
        return super().divide(game) * (1.0 if game.n_players < 11 else 1.1)


@liar("efficient", "units of 1e\\+08")
class Capped(Fair):
    def divide(self, game):
        return super().divide(game).clamp(max=1e7)


@liar("efficient", "round 2 of an episode")
class TiredInTheThirdRound(Fair):
    def assign(self, round):
        return super().assign(round) * (0.5 if round.t == 2 else 1.0)


@liar("efficient", "not declared, but kept in all")
class ModestAboutEfficiency(Fair):
    efficient = False


@liar("symmetric", "agents 0 and \\d+ are interchangeable, but paid")
class KindToTheFirst(Fair):
    null_player = False

    def divide(self, game):
        paid = super().divide(game)
        gift = 1e-6 * game.grand()
        paid[:, 0] += gift
        paid[:, -1] -= gift
        return paid


@liar("symmetric", "are interchangeable, but paid")
class VolumeCalledFair(credit.DataSize):
    r""".. math:: c_i = s_i"""

    symmetric = True


@liar("symmetric", "are interchangeable, but paid")
class SampledAndCalledSymmetric(credit.KernelShap):
    r""".. math:: c_i = \hat\phi_i"""

    symmetric = True


@liar("symmetric", "not declared, but kept in all")
class ModestAboutSymmetry(Fair):
    symmetric = False


@liar("null_player", "agent \\d+ adds nothing to any coalition, but is paid")
class EqualCalledMerit(credit.Equal):
    r""".. math:: c_i = v(N)/n"""

    null_player = True


@liar("null_player", "adds nothing to any coalition, but is paid")
class SampledAndCalledNullPlayer(credit.ComplementaryContributions):
    r""".. math:: c_i = \hat\phi_i"""

    null_player = True


@liar("null_player", "overshoots")
class AlignedCalledMerit(Aligned):
    null_player = True


@liar("null_player", "not declared, but kept in all")
class ModestAboutNullPlayers(Fair):
    null_player = False


@liar("finite", "pays agent 0 nan")
class DividesByTheGain(Fair):
    def divide(self, game):
        paid = super().divide(game)
        return paid / paid.sum(dim=1, keepdim=True) * game.grand()[:, None]


@liar("finite", "credit is torch.int64 \\(2, 1\\): must be floating point \\(2, 1\\)")
class PaysInCoins(credit.CreditRule):
    source = "these tests"

    def assign(self, round):
        return round.admitted.sum(dim=-1)


@liar("finite", "credit is torch.float32 \\(2,\\): must be floating point \\(2, 1\\)")
class PaysTheFirstOnly(credit.CreditRule):
    source = "these tests"

    def assign(self, round):
        return round.admitted[:, 0].sum(dim=-1).float()


@liar("finite", "credit is list")
class PaysALedger(credit.CreditRule):
    source = "these tests"

    def assign(self, round):
        return round.admitted.sum(dim=-1).tolist()


@liar("nothing", "none of 1 agents does anything, agent 0 is paid 1e-12")
class PaysForBeingThere(Fair):
    def divide(self, game):
        return super().divide(game) + 1e-12 * (game.grand() == 0)[:, None]


@liar("batch", "environment \\d of 4 pays its \\d+ agents .*; by itself")
class GradesOnACurve(Fair):
    efficient = False

    def divide(self, game):
        paid = super().divide(game)
        return paid * (1 + 0.01 * paid.abs().mean())


@liar("reset", "when a rule that had been used is reset")
class NeverForgets(Fair):
    efficient = False

    def __init__(self):
        self.n_paid = 0

    def divide(self, game):
        self.n_paid += 1
        return super().divide(game) * (1 + 0.01 * self.n_paid)


@liar("reset", "when a rule that had paid rounds of the same size is reset")
class ForgetsOnlyOtherSizes(Fair):
    efficient = symmetric = null_player = False

    def __init__(self):
        self.sums = None

    def divide(self, game):
        paid = super().divide(game)
        if self.sums is None or self.sums.shape != paid.shape:
            self.sums = torch.zeros_like(paid)
        self.sums = self.sums + paid
        return 0.5 * (paid + self.sums)


@liar("batch reset game", "when a new rule is built")
class SharesItsMemory(Fair):
    efficient = False
    n_paid = [0]  # noqa: RUF012 - the mistake that is to be found

    def divide(self, game):
        self.n_paid[0] += game.n_players == 10
        return super().divide(game) * (1 + 0.01 * self.n_paid[0])


@liar("batch reset game", "when a new rule is built")
class DrawsFromTheGlobalGenerator(Fair):
    efficient = False

    def divide(self, game):
        return super().divide(game) * (1 + torch.rand(()).item())


@liar("cost", "8 coalitions were evaluated|7 coalitions were evaluated, but cost\\(3\\) is 6")
class Wasteful(Fair):
    def cost(self, n_players):
        return 2**n_players - 2


@liar("cost", "1 coalitions were evaluated, but cost\\(1\\) is 0")
class ForgetsItsCost(credit.CreditRule):
    source = "these tests"
    efficient = symmetric = True

    def assign(self, round):
        return (round.gain / round.num_agents)[:, None].repeat(1, round.num_agents)


@liar("unchanged", "wrote into the round's updates")
class ScalesUpdates(Fair):
    def assign(self, round):
        paid = super().assign(round)
        round.updates.mul_(2.0)
        return paid


@liar("unchanged", "wrote into the round's admitted")
class AdmitsEverything(Fair):
    def assign(self, round):
        round.admitted[:] = False
        return super().assign(round)


@liar("unchanged", "wrote into the round's gain")
class SpendsTheGain(Fair):
    def assign(self, round):
        paid = super().assign(round)
        round.gain.zero_()
        return paid


@liar("unchanged", "what was paid in round 0 was changed by a later round")
class PaysFromOneBuffer(Fair):
    def reset(self, num_envs, num_agents):
        super().reset(num_envs, num_agents)
        self.buffer = torch.zeros(num_envs, num_agents, dtype=torch.float64)

    def assign(self, round):
        return self.buffer.copy_(super().assign(round))


@liar("sizes", "max_players=12, but check takes 13")
class NeverRefuses(Fair):
    def check(self, n_players):
        pass


@liar("sizes", "max_players=12, but reset takes 13")
class RefusesTooLate(Fair):
    def reset(self, num_envs, num_agents):
        pass


@liar("sizes", "a random round of 7 agents is refused, after reset had taken its 7 agents: seven is too many")
class RefusesWhenItIsTooLate(Fair):
    def divide(self, game):
        if game.n_players == 7:
            raise ValueError("seven is too many")
        return super().divide(game)


@liar("game", "two rounds of 4 agents with the same game are paid")
class GlancesAtTheData(Fair):
    efficient = False

    def assign(self, round):
        return super().assign(round) * (1 + 0.01 * round.admitted.sum(dim=(1, 2)))[:, None]


@liar("game", "has the values .* but a round with it is paid")
class SaysOneThingAndPaysAnother(Fair):
    efficient = False

    def assign(self, round):
        return 2 * super().assign(round)


@liar("game", "a game of 4 players is refused: not today")
class ServesNoGames(Fair):
    def assign(self, round):
        return credit.shapley_values(round.game.values())

    def divide(self, game):
        raise ValueError("not today")


@liar("manual", "source='unpublished'")
class FromNowhere(Fair):
    source = "unpublished"


@liar("manual", "no docstring with its formula")
class WithoutFormula(Fair):
    """The Shapley value."""


@liar("manual", "family='divison': must be one of division, value, estimator, federated, .*, wrapper")
class OfNoFamily(Fair):
    family = "divison"


class FairToLots(credit.LotRule):
    r""":math:`v(N) s_{ik} / \sum s`"""

    source = "a test"
    efficient = True

    def cost(self, n_players):
        return 1

    def assign_lots(self, round):
        return credit.make("data_size").assign_lots(round)


@liar("lots", "lots of .* earn .* in all, but agents are paid")
class PaysOtherwise(FairToLots):
    symmetric = True

    def assign(self, round):
        return credit.make("equal").assign(round)


@liar("lots", "lots are paid that were not contributed")
class PaysForNothingContributed(FairToLots):
    symmetric = True

    def assign_lots(self, round):
        paid = super().assign_lots(round)
        everybody = paid.sum(dim=(1, 2), keepdim=True) / paid[0].numel()
        return paid - paid + everybody


@liar("lots", r"what lots earn has shape \(2, 4, 1\), must be \(2, 4, 2\)")
class OneNumberForAllLots(FairToLots):
    def assign_lots(self, round):
        return super().assign_lots(round).sum(dim=-1, keepdim=True)


@liar("manual", "symmetric=1: must be True or False")
class Almost(Fair):
    symmetric = 1


@pytest.mark.parametrize(("checks", "rule", "message"), LIARS, ids=[rule.__name__ for _, rule, _ in LIARS])
def test_a_lie_is_found_and_nothing_else(checks, rule, message):
    with pytest.raises(credit.RuleViolation, match=message) as caught:
        credit.check_rule(rule)
    assert list(caught.value.report.findings) == checks


def test_every_check_is_shown_to_find_something_by_itself():
    assert {checks[0] for checks, _, _ in LIARS if len(checks) == 1} == CHECKS.keys()


def test_all_that_is_wrong_is_told_at_once():
    class Hopeless(credit.DataSize):
        symmetric = null_player = True
        source = "unpublished"

        def cost(self, n_players):
            return 0

    with pytest.raises(AssertionError) as caught:
        credit.check_rule(Hopeless)
    assert list(caught.value.report.findings) == ["symmetric", "null_player", "cost", "manual"]
    for words in [
        "Hopeless does not pass",
        "symmetric: declared",
        "null_player: declared",
        "cost: in",
        "manual: Hopeless has no docstring",
    ]:
        assert words in str(caught.value)


# the report


def test_the_report_shows_where_a_rule_lacks_what_it_does_not_declare():
    report = credit.check_rule("equal")
    assert report.ok
    assert [report.axioms[axiom].held for axiom in AXIOMS] == [True, True, False]
    assert report.axioms["null_player"].residual > 0.1
    assert "  efficient: declared, kept\n" in str(report)
    assert re.search(
        r"null_player: not declared, broken: in .*agent \d adds nothing to any coalition, but is paid .* instead of 0", str(report)
    )


def test_a_rule_is_tried_on_the_sizes_that_it_serves():
    assert credit.check_rule("owen(unions=[[0, 1], [2, 3, 4]])").sizes == (5,)
    assert 64 in credit.check_rule("loo").sizes


def test_a_case_of_ones_own_shows_what_the_battery_does_not():
    class GenerousToThirteen(Fair):
        r""".. math:: c_i = \phi_i + [n = 13]"""

        efficient = False
        max_players = 13

        def divide(self, game):
            return super().divide(game) * (2.0 if game.n_players == 13 else 1.0)

    with pytest.raises(credit.RuleViolation, match="efficient: not declared, but kept in all"):
        credit.check_rule(GenerousToThirteen)
    thirteen = credit.Case("thirteen gloves", lambda: [credit.game_round(games.glove(6, 7).game())])
    assert "thirteen gloves" in credit.check_rule(GenerousToThirteen, cases=[thirteen]).axioms["efficient"].witness
    credit.check_rule(GenerousToThirteen, waive=["efficient"])


def test_a_rule_s_own_error_is_not_swallowed_and_says_where_it_came_up():
    class Broken(Fair):
        def divide(self, game):
            raise ZeroDivisionError("no division")

    with pytest.raises(ZeroDivisionError) as caught:
        credit.check_rule(Broken)
    assert caught.value.__notes__ == ["while Broken was paying for a random round of 1 agents"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Fair(), "pass a name, a class or a function"),
        (lambda: 3, "builds int: must be a CreditRule"),
        (lambda rule=Fair(): rule, "returns the same rule again"),  # noqa: B008 - the mistake
        ("fiar", "unknown credit rule"),
        ("coopetition(interdependence=[[0] * 20] * 20)", "is no value: write a number"),
        (lambda: credit.Owen([[*range(20)]]), r"serves none of the battery's numbers of agents \(1, 2, .*64\)"),
    ],
)
def test_what_cannot_be_tested_is_refused_with_the_reason(rule, message):
    with pytest.raises(ValueError, match=message):
        credit.check_rule(rule)


def test_an_unknown_check_cannot_be_waived():
    with pytest.raises(ValueError, match=r"waive=\['linear'\]: the checks are efficient, symmetric, "):
        credit.check_rule("loo", waive=["linear"])
