"""The steps of a round: what an :class:`~proxycoop.envs.Engine` does with its cooperatives, one after another.

1. *Look*: lots propose updates from the shared parameters, and the screening judges them. What follows from the shared parameters is a
   :class:`~proxycoop.envs.records.Prospect`; the proxies *observe* some of it.
2. *Advance*: the contributed updates are *screened*; where there is room for only some, an admission mechanism *chooses* among those that
   pass; and what is admitted is *aggregated* into one step.
3. *Pay*: the credit rule credits the agents, who bear their *costs*.
4. *Close*: the step is *applied*, and the cooperatives look at where it leads. What the round earned is *settled*, and *rewards* are made.

Advance and close are functions of tensors alone, which may be compiled: see :mod:`~proxycoop.envs.rounds.compiled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ...credit import CreditRule, LotGame, LotRule, Round
from ..admission import Admission, Offers, shared_credit
from ..aggregation import Mean
from ..compiled.assumptions import usually
from ..conduct import Items, Standing, forge, remember
from ..data.lots import DealtLots, DrawnLots, LotRecords, LotSource
from ..model.coalitions import RoundStep, UtilityGame
from ..model.likelihood import log_softmax, rights
from ..model.robust import RobustStep
from ..model.server import ServerState
from ..model.substrates import Proposals
from ..model.utility import accuracy
from ..money.settlement import Treasury, Turnover
from ..observations.layout import ObservationLayout
from ..observations.marginal_gains import marginal_gains
from ..observations.memory import Memory
from ..participation import Attendance
from ..played_round import PlayedRound
from ..randomness import Purpose, fold, uniform
from ..records import Entry, Merged, Pay, Prospect, RoundResult
from ..scenario import Scenario
from ..screening.electorate import Electorate
from ..screening.harm import predicted_harm
from ..screening.profiles import Profiles
from ..screening.verdicts import admissible, forbidden_by
from ..shared import Ground
from ..values.gradients import losses_and_gradients
from ..values.interface import Value


class RoundSteps:
    """E cooperatives as they stand, and the steps of their rounds. :class:`~proxycoop.envs.Engine` sets the state and takes the steps."""

    scenario: Scenario
    num_envs: int
    num_agents: int
    num_seats: int
    num_lots: int
    horizon: int
    dtype: torch.dtype
    device: torch.device
    values: Mapping[str, Value]
    layout: ObservationLayout
    rule: CreditRule | None
    rule_name: str
    reward_scale: float
    treasury: Treasury | None
    episode: int
    t: int
    profiles: Profiles
    lots: LotRecords
    attendance: Attendance | None
    theta: Tensor
    server_state: ServerState
    prospect: Prospect
    observations: Tensor
    round: Round
    _ground: Ground
    _keys: Tensor
    _memory: Memory
    _everyone: Tensor
    _unguarded: Tensor
    _none: Tensor
    items: Items
    standing: Standing
    _looked_up: DrawnLots | None
    _electorate: Electorate | None

    def _open(self) -> None:
        """Look at where the episode begins."""
        self._take_seats()
        self.prospect = self._look()
        self.profiles = self.profiles.begun(self.prospect.value_losses)
        if self._electorate is not None:
            self._electorate = self._electorate.begun(self.prospect.value_losses)
        self._memory.begin(self.prospect.utility)

    def _take_seats(self) -> None:
        """Draw who is present in the round to come, where only some agents are, and look up their lots, their profiles and their past."""
        if self._electorate is None:
            return
        assert isinstance(self.lots, DealtLots)
        assert isinstance(self._ground.lot_source, LotSource)
        assert self.profiles.kind is not None
        self.attendance = who = Attendance.drawn(self._keys, int(self.t), self.num_agents, self.num_seats)
        self._looked_up = self._ground.lot_source.of_those(self.lots, who).prepared(self._ground.model.prepare)
        self._electorate = self._electorate.with_present(who.of(self.profiles.kind))
        self._memory.seat(who)

    def _advance(self, chosen: Tensor) -> tuple[Entry, Merged, Tensor]:
        """What enters of the chosen items, bool ``(E, N, I)``; the step that it makes; and everybody's cost ``(E, N)``."""
        pulled = None
        if self.items:
            chosen = chosen & self.prospect.choosable
            chosen, pulled = chosen[..., : self.items.n_updates], chosen[..., self.items.n_updates :]
            self.prospect = self._pull(pulled)
        entry = self._screen(chosen & self.prospect.available)
        if pulled is not None:
            entry = replace(entry, pulled=pulled)
        if self.scenario.admission is not None:
            entry = self._make_room(entry, self.scenario.admission)
        return entry, self._aggregate(entry.admitted), self._cost(entry, self.prospect.own_admissible)

    def _pull(self, pulled: Tensor) -> Prospect:
        """The round as it stands once these levers are pulled, bool ``(E, N, L)``."""
        look, items = self.prospect, self.items
        factor = items.claims(pulled)[..., None]  # (E, N, 1)
        assert look.claimed is not None
        look = replace(
            look,
            claimed=look.claimed * factor.to(look.claimed),
            proposals=replace(look.proposals, share=look.proposals.share * factor.to(look.proposals.share)),
        )
        leaves, blocks = items.who(pulled, "quit"), items.who(pulled, "block")
        if leaves is not None:
            self.standing = replace(self.standing, gone=self.standing.gone | leaves)
            look = replace(look, available=look.available & ~leaves[..., None])
        if blocks is not None:
            spared = items.fellows(self.num_agents, blocks)
            verdicts = replace(look.verdicts, blocks=blocks, spared=spared)
            passes = admissible(verdicts, self.scenario.screening)
            look = replace(look, verdicts=verdicts, filtered=replace(look.filtered, passes=passes, kept=passes.to(look.filtered.kept)))
        if (vouching := items.who(pulled, "vouch")) is not None:
            look = replace(look, vouching=vouching, fellows=items.fellows(self.num_agents, vouching))
        return look

    def _close(self, entry: Entry, merged: Merged, pay: Pay) -> RoundResult:
        """Apply the step, look at where it leads, and record the round."""
        before, who = self.prospect, self.attendance
        self._move(entry, merged, pay)
        return self._told(before, entry, merged, pay, who)

    def _move(self, entry: Entry, merged: Merged, pay: Pay) -> None:
        """Apply the step, remember the round, and look at where it leads."""
        self._apply(merged)
        utility = self.prospect.utility
        self._memory.remember(entry, pay, merged.delta, utility)
        if entry.pulled is not None:
            forgeries, updates = self.items.conduct.forgeries, self.prospect.proposals.updates
            sent = remember(self.standing.sent, forgeries, entry.contributed, updates, self.num_lots)
            self.standing = replace(self.standing, declared=self.items.declared(entry.pulled).to(self.theta), sent=sent)
        if entry.places is not None:
            n_taken = self.of_those_present(self.standing.taken) + entry.admitted.sum(dim=-1)
            if self.attendance is not None:
                n_taken = self.attendance.among_all(n_taken, self.standing.taken)
            self.standing = replace(self.standing, taken=n_taken)
        self._take_seats()
        self.prospect = self._look()

    @property
    def _at_work(self) -> DrawnLots:
        """The lots of those who are present: all lots, unless they are looked up in each round."""
        if self._looked_up is not None:
            return self._looked_up
        assert isinstance(self.lots, DrawnLots)
        return self.lots

    def of_those_present(self, by_agent: Tensor) -> Tensor:
        """What belongs to the agents that are present, ``(E, N, …)`` → ``(E, m, …)``; the same where all are."""
        return by_agent if self.attendance is None else self.attendance.of(by_agent)

    def _told(self, before: Prospect, entry: Entry, merged: Merged, pay: Pay, who: Attendance | None = None) -> RoundResult:
        """Book what the round earned, let the proxies observe, and record the round, in which these agents were present (all, if none)."""
        pay = pay if who is None else pay.among_all(who)
        turnover = self._settle(pay.credit)
        suffered = None
        if self.scenario.reward.loyalty:
            suffered = self.profiles.suffered(before.value_losses, self.prospect.value_losses, self.horizon)
        rewards = self._rewards(pay, turnover, self.standing.gone if self.items else None, suffered)
        self.observations = self._observe()
        result = self._result(before, entry, merged, pay, turnover, rewards)
        if who is None:
            return result
        payments = None if result.payments is None else who.among_all(result.payments)
        return replace(result, payments=payments).among_all(who)

    def _screen(self, contributed: Tensor) -> Entry:
        """Which of the contributed updates enter, and which others would have."""
        before = self.prospect
        if self.scenario.screening.governance != "negotiate":
            return Entry(contributed, admitted=contributed & before.passes, candidates=before.available & before.passes)
        participants = self.scenario.weights == "participants"
        bargain = self._ground.screener.bargain(contributed, before.verdicts, before.proposals.share, self._predicted_gain(), participants)
        # Nobody knows what a bargain over other contributions would have let in: lots to which nobody objects are taken as candidates.
        unopposed = before.available & ~contributed & ~before.blocked_by.any(dim=-1)
        return Entry(contributed, admitted=bargain.admitted, candidates=bargain.admitted | unopposed, bargain=bargain)

    def _make_room(self, entry: Entry, admission: Admission) -> Entry:
        """What enters of the updates that passed the screening, where there is room for only some."""
        look, needs = self.prospect, admission.choose.needs
        sent = look.filtered.updates
        gain = wants = likeness = bids = None
        if "gain" in needs and self.scenario.utility == "neg_log_loss":
            gain = look.proposals.share * predicted_harm(self._ground.utility.gradient(self.theta)[:, None], sent)[..., 0]
        if "wants" in needs:
            share = look.proposals.share[..., : self.num_lots, None]
            own = (share * look.proposals.updates[:, :, : self.num_lots]).sum(dim=2)  # where its own data would move the model
            own = own / share.sum(dim=2).clamp(min=torch.finfo(own.dtype).tiny)
            wants = (own @ sent.flatten(1, 2).mT).unflatten(2, sent.shape[1:3])
        if "likeness" in needs:
            flat = sent.flatten(1, 2)
            flat = flat / vector_norm(flat, dim=-1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            likeness = flat @ flat.mT
        if "bids" in needs and entry.pulled is not None:
            bids = self.items.bids(entry.pulled).to(self.theta)
        offers = Offers(
            candidates=entry.admitted,
            gain=gain,
            wants=wants,
            likeness=likeness,
            bids=bids,
            taken=self.of_those_present(self.standing.taken),
            keys=fold(self._keys, Purpose.ADMISSION),
            t=int(self.t),
        )
        places = admission.choose.choose(admission.capacity, offers)
        if self.items and places.payments is not None:  # who has left gets nothing back
            places = replace(places, payments=places.payments.masked_fill(self.standing.gone, 0.0))
        # Of updates that were not contributed, nobody knows whether they would have found a place, unless there is room for all of them.
        others = entry.candidates & ~entry.contributed
        left = admission.capacity - places.admitted.sum(dim=(1, 2))
        room = others.sum(dim=(1, 2)) <= left
        candidates = places.admitted | (others & room[:, None, None])
        return replace(entry, admitted=places.admitted, candidates=candidates, passed=entry.admitted, places=places)

    def _aggregate(self, admitted: Tensor) -> Merged:
        """The admitted updates as one step, guarded if asked for."""
        prospect, scenario = self.prospect, self.scenario
        aggregate = self._round_step(admitted * prospect.proposals.share)
        step = aggregate.step(self._everyone)  # (E, 1, P)
        if scenario.privacy is not None and scenario.privacy.noise == "step":
            largest = prospect.proposals.share[:, :, : self.num_lots].amax(dim=(1, 2))  # of a lot in the step
            step = step + scenario.privacy.of_step(largest, step.shape[-1], self._keys, int(self.t))[:, None].to(step)
        delta = scenario.server.delta(step, self.server_state)[:, 0]
        profiles = prospect.verdicts.profiles
        guarded = self._ground.screener.guard(self.theta, delta, profiles, prospect.value_losses, prospect.value_gradients)
        if scenario.screening.guard:
            aggregate, delta = replace(aggregate, gamma=guarded.gamma), guarded.gamma[:, None] * delta
        return Merged(aggregate=aggregate, step=step[:, 0], delta=delta, guarded=guarded)

    def _round_step(self, share: Tensor) -> RoundStep:
        """The step of lots with these shares of all data, ``(E, N, K)``, before a guard."""
        updates = self.prospect.filtered.updates
        n_envs, n_agents, n_lots, _ = updates.shape
        merged = torch.bmm(share.reshape(-1, 1, n_lots), updates.flatten(end_dim=1))  # (E·N, 1, P)
        step = RoundStep(
            model=self._ground.model,
            server=self.scenario.server,
            state=self.server_state,
            theta=self.theta,
            updates=merged.reshape(n_envs, n_agents, -1),
            weight=share.sum(dim=-1),
            weights=self.scenario.weights,
            gamma=self._unguarded,
        )
        if (aggregator := self.scenario.aggregator) == Mean():
            return step
        order = uniform(fold(self._keys, Purpose.AGGREGATION, int(self.t)), n_agents, n_lots).to(share)
        return RobustStep(**vars(step), aggregator=aggregator, sent=updates, share=share, order=order, n_agents=n_agents)

    def _as_played(self, entry: Entry, aggregate: RoundStep) -> PlayedRound:
        """The round, for the credit rule to ask about."""
        return PlayedRound(
            t=self.t,
            episode=self.episode,
            before=self.prospect,
            lots=self._at_work,
            who=self.attendance,
            contributed=entry.contributed,
            admitted=entry.admitted,
            candidates=entry.candidates,
            aggregate=aggregate,
            utility=self._ground.utility,
            screening=self.scenario.screening,
        )

    def _pay(self, entry: Entry, cost: Tensor) -> Pay:
        """What the rule pays for the round, what the round gained, and what it cost each agent, ``(E, N)``."""
        credit, lot_credit = self._credit()
        if entry.places is not None and entry.places.kinds is not None:
            credit, lot_credit = _among_kinds(credit, lot_credit, entry, entry.places.kinds)
        evaluations = self.round.evaluations  # before the gain is asked for: a rule that does not need it has not paid for it
        return Pay(credit=credit, lot_credit=lot_credit, gain=self.round.gain, cost=cost, evaluations=evaluations)

    def _credit(self) -> tuple[Tensor, Tensor | None]:
        """What the rule pays for the round, to agents and, if it can tell, to lots; checked, because third parties write rules."""
        shape: tuple[int, ...] = self.num_envs, self.num_seats
        if self.rule is None:
            return self.theta.new_zeros(shape), None
        if by_lot := isinstance(self.rule, LotRule):
            answer, shape = self.rule.assign_lots(self.round), (*shape, self.items.n_updates)
        else:
            answer = self.rule.assign(self.round)
        if not isinstance(answer, Tensor) or tuple(answer.shape) != shape:
            came = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(f"credit rule {self.rule_name} answered with {came}, must be a tensor of shape {shape}")
        credit, lot_credit = (answer.sum(dim=-1), answer) if by_lot else (answer, None)
        if not isfinite(credit.abs().amax()):
            if not self.round.gain.isfinite().all():
                raise ValueError(f"the shared model diverged in round {self.t}: lower the learning rates of the substrate and the server")
            raise ValueError(f"credit rule {self.rule_name} answered with numbers that are not finite in round {self.t}")
        credit, lot_credit = credit.to(self.theta), None if lot_credit is None else lot_credit.to(self.theta)
        if self.items:  # who has left is paid nothing
            credit = credit.masked_fill(self.standing.gone, 0.0)
            lot_credit = None if lot_credit is None else lot_credit.masked_fill(self.standing.gone[..., None], 0.0)
        return credit, lot_credit

    def _no_credit(self) -> Tensor:
        """No credit for anybody, ``(E, N)``."""
        return self.theta.new_zeros(self.num_envs, self.num_agents)

    def _apply(self, merged: Merged) -> None:
        """Move the shared parameters, and with them to the next round."""
        self.server_state = self.scenario.server.advance(merged.step, self.server_state, merged.delta)
        self.theta = self.theta + merged.delta
        self.t = self.t + 1  # not in place: it may be a tensor that is being traced

    def _propose(self) -> Proposals:
        """What the lots propose from the shared parameters."""
        return self.scenario.substrate.propose(self._ground.model, self.theta, self._at_work, self._keys, self.t)

    def _look(self) -> Prospect:
        """Everything that follows from the shared parameters."""
        theta, ground, model, dataset = self.theta, self._ground, self._ground.model, self._ground.splits.dataset
        logits, *probe_logits = model.logits(theta, ground.held_x).split(ground.held_sizes, dim=1)  # (E, rows, C) each
        log_share = log_softmax(logits)
        mean_log_share = rights(log_share, ground.validation.column)[..., 0].mean(dim=-1)
        utility = mean_log_share if self.scenario.utility == "neg_log_loss" else accuracy(logits, ground.validation.y)
        value_losses, value_gradients = losses_and_gradients(self.values, ground.probes, probe_logits, model, theta, dataset)
        proposals = self._propose()
        norm = vector_norm(proposals.updates, dim=-1)  # (E, N, K)
        privacy = self.scenario.privacy
        if privacy is not None:  # a forged update is made of what has left the proxy, or is no one's data
            proposals = replace(proposals, updates=privacy.released(proposals.updates, norm, self._keys, int(self.t)))
            norm = vector_norm(proposals.updates, dim=-1)
        if self.items.conduct.forgeries:
            proposals = self._with_forgeries(proposals, norm, -mean_log_share)
            norm = vector_norm(proposals.updates, dim=-1)  # (E, N, U)
            if privacy is not None and privacy.noise == "step":  # else it is made of what is noised, and as long
                forged = proposals.updates[:, :, self.num_lots :]
                cut = privacy.shortened(forged, norm[..., self.num_lots :])
                proposals = replace(proposals, updates=torch.cat([proposals.updates[:, :, : self.num_lots], cut], dim=2))
                norm = vector_norm(proposals.updates, dim=-1)
        finite = norm < torch.inf
        if not usually(finite):
            proposals = replace(proposals, updates=torch.where(finite[..., None], proposals.updates, 0.0))
        directions = torch.cat([value_gradients, self._memory.past.step[:, None]], dim=1)  # (E, M + 1, P): one pass over the updates
        products = predicted_harm(directions, proposals.updates)
        harm, along = products[..., :-1], products[..., -1]  # (E, N, K, M), (E, N, K)
        profiles = self.profiles if self._electorate is None else self._electorate.profiles
        if self.items:
            proposals = replace(proposals, available=proposals.available & ~self.standing.gone[..., None])
            profiles = profiles.declared(self.standing.declared, self.standing.gone)
        profiles = profiles.at(value_losses, value_losses if profiles.start is None else None)  # or it begins here
        verdicts, mended = ground.screener.judge(
            theta,
            proposals.updates,
            norm,
            finite,
            harm,
            self.items.tags(self._at_work),
            self._at_work.samples,
            profiles,
            value_losses,
            value_gradients,
            self._electorate,
        )
        return Prospect(
            proposals=proposals,
            along=along,
            verdicts=verdicts,
            filtered=mended,
            available=proposals.available,
            value_gradients=value_gradients,
            value_losses=value_losses,
            left=profiles.nothing_limited if profiles.remaining is None else profiles.remaining,
            left_share=profiles.nothing_limited_in_shares if profiles.remaining_share is None else profiles.remaining_share,
            log_share=log_share,
            validation_loss=-mean_log_share,
            utility=utility,
            pullable=self.items.pullable(self.standing.gone, self.profiles.tolerates) if self.items else None,
            claimed=self.items.samples(self._at_work).double().expand(self.num_envs, -1, -1) if self.items else None,
        )

    def _value_losses(self, theta: Tensor) -> Tensor:
        """Value losses on the probe sets at some parameters, ``(E, P)`` → ``(E, M)``."""
        model, dataset = self._ground.model, self._ground.splits.dataset
        losses = [
            value.loss(model.logits(theta, probe.x), probe, dataset)
            for value, probe in zip(self.values.values(), self._ground.probes, strict=True)
        ]
        return torch.stack(losses, dim=1).to(theta)

    def _with_forgeries(self, proposals: Proposals, norm: Tensor, validation_loss: Tensor) -> Proposals:
        """The lots' proposals, and after them the forged ones, whose loss is taken to be that of the validation rows."""
        keys, past, t = self._keys, self._memory.past, int(self.t)
        updates, can = forge(
            self.items.conduct.forgeries, proposals.updates, norm, proposals.available, past.step, self.standing.sent, keys, t
        )
        share = self.items.samples(self._at_work) / self._at_work.samples.sum()
        share = share[:, self.num_lots :].to(updates).expand(len(updates), -1, -1)
        return Proposals(
            updates=torch.cat([proposals.updates, updates], dim=2),
            share=torch.cat([proposals.share, share], dim=2),
            loss=torch.cat([proposals.loss, validation_loss[:, None, None].expand_as(share)], dim=2),
            available=torch.cat([proposals.available, can], dim=2),
        )

    def _predicted_gain(self) -> Tensor:
        """First-order gain ⟨∇U, Δ⟩ of every update as proposed, ``(E, N, K)``."""
        return predicted_harm(self._ground.utility.gradient(self.theta)[:, None], self.prospect.proposals.updates)[..., 0]

    def _lot_game(self) -> LotGame:
        """What the coming round would gain with any set of lots."""
        look = self.prospect
        step = self._round_step(torch.zeros_like(look.proposals.share)).of_lots(look.proposals.share, look.filtered.updates)
        utility = self._ground.utility
        value = UtilityGame(step, utility.name, utility.rows, look.log_share).value_of_lots
        return LotGame(value, look.available & look.passes)

    def _observe(self) -> Tensor:
        """What every proxy sees."""
        money = self.treasury.features(self.t, self.device, self.dtype) if self.treasury is not None and self.layout.settles else ()
        gains = [marginal_gains(self._lot_game(), self._memory.past.contributed)] if self.layout.informed else ()
        holds = self.of_those_present(self.profiles.holds)
        money = [self.of_those_present(seen) if isinstance(seen, Tensor) else seen for seen in money]
        seen = self._memory.observe(self.t, self.theta, self.prospect, holds, money, gains)
        return seen if self.attendance is None else self.attendance.among_all(seen, self.observations)

    def _settle(self, credit: Tensor) -> Turnover | None:
        """Book what the round earned, and split it if it is time; ``None`` where the scenario has no money."""
        return None if self.treasury is None else self.treasury.close(self.t - 1, credit, self.prospect.utility)

    def _cost(self, entry: Entry, own_admissible: Tensor) -> Tensor:
        """Costs and fines of the round, and what places were bought for, ``(E, N)``, in reward units."""
        reward, contributed = self.scenario.reward, entry.contributed
        n_violations = (contributed > own_admissible).sum(dim=-1, dtype=self.dtype)
        if entry.pulled is None:
            n_lots = contributed.sum(dim=-1, dtype=self.dtype)
        else:  # in units of a lot
            costs = torch.tensor(self.items.costs, dtype=self.dtype).to(self.device)
            n_lots = (torch.cat([contributed, entry.pulled], dim=-1) * costs).sum(dim=-1)
        cost = reward.contribution_cost * n_lots + reward.violation_penalty * n_violations
        if entry.places is not None and entry.places.payments is not None:
            cost = cost + entry.places.payments.to(cost)
        return cost

    def _rewards(self, pay: Pay, turnover: Turnover | None, gone: Tensor | None, suffered: Tensor | None) -> Tensor:
        """What each agent is rewarded with, ``(E, N)``, in reward units. Those who are gone have no part in what the others gain.

        What principals suffered, ``(E, N)``, counts with ``reward.loyalty``.
        """
        terms, scale, public_share = self.scenario.settlement, self.reward_scale, self.scenario.reward.public_share
        gain = pay.gain[:, None]
        if gone is not None and public_share:
            gain = gain * ~gone
        if turnover is not None and terms is not None and terms.reward == "settlement":
            rewards = turnover.worth.to(pay.credit) + scale * public_share * gain - pay.cost
        else:
            rewards = scale * (pay.credit + public_share * gain if public_share else pay.credit) - pay.cost
        return rewards if suffered is None else rewards - self.scenario.reward.loyalty * suffered

    def _result(self, before: Prospect, entry: Entry, merged: Merged, pay: Pay, turnover: Turnover | None, rewards: Tensor) -> RoundResult:
        """The record of the round."""
        return RoundResult(
            observations=self.observations,
            rewards=rewards,
            credit=pay.credit,
            lot_credit=pay.lot_credit,
            contributed=entry.contributed,
            admitted=entry.admitted,
            blocked_by=before.blocked_by,
            harm=before.verdicts.harm,
            kept=before.filtered.kept * entry.admitted,
            tolerance=before.verdicts.profiles.strictest_tolerance,
            bargain=entry.bargain,
            gain=pay.gain,
            utility=self.prospect.utility,
            value_losses=self.prospect.value_losses,
            left=self.prospect.left.amin(dim=1),
            step_harm=merged.guarded.harm,
            violated=merged.guarded.violated,
            forbidden_used=self._uses_forbidden(before, entry.admitted),
            gamma=merged.aggregate.gamma,
            cost=pay.cost,
            revenue=None if turnover is None else turnover.revenue,
            payouts=None if turnover is None else turnover.payouts,
            evaluations=pay.evaluations,
            done=self.t == self.horizon,
            pulled=entry.pulled,
            passed=entry.passed,
            payments=None if entry.places is None else entry.places.payments,
        )

    def _uses_forbidden(self, before: Prospect, admitted: Tensor) -> Tensor:
        """Whether what was admitted holds data that somebody forbids, bool ``(E,)``."""
        profiles = self.profiles if self._electorate is None else before.verdicts.profiles
        if not profiles.forbidden.shape[-1]:
            return self._none
        return (forbidden_by(before.verdicts.tags, profiles).any(dim=-1) & admitted).any(dim=(1, 2))


def _among_kinds(credit: Tensor, lot_credit: Tensor | None, entry: Entry, kinds: Tensor) -> tuple[Tensor, Tensor | None]:
    """Credit where all who offered an update of a kind share what the admitted ones of that kind earned, to agents and, if known, to lots.

    A rule that does not tell what lots earned is taken to pay an agent's admitted lots alike; what it pays to an agent without any stays
    with that agent.
    """
    n_admitted = entry.admitted.sum(dim=-1)  # (E, N)
    of_lots = entry.admitted * (credit / n_admitted.clamp(min=1))[..., None] if lot_credit is None else lot_credit
    assert entry.passed is not None
    shared = shared_credit(of_lots, kinds, entry.passed)
    if lot_credit is not None:
        return shared.sum(dim=-1), shared
    return shared.sum(dim=-1) + credit.masked_fill(n_admitted > 0, 0.0), None
