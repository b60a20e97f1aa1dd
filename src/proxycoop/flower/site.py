"""A site of a federation: one principal's rows and its proxy, which decides each round what the site offers.

What is private is computed here and stays here: the lots' rows, the loss of the shared model on them, the updates that are not offered,
their norms one by one, their cosine with the last step, and what harm they are predicted to do. The observation that the policy reads is
made from these and from what the server tells, by the code that makes observations in the simulator.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from .. import __version__
from ..agents.agent import Agent, make
from ..checks import whole_number
from ..envs.conduct import Items
from ..envs.data.lots import DrawnLots
from ..envs.devices import plain_torch
from ..envs.model.models import Model
from ..envs.model.substrates import Proposals
from ..envs.observations.layout import ObservationLayout
from ..envs.observations.memory import Memory, Past, seen_norms
from ..envs.randomness import Purpose, fold
from ..envs.records import Prospect
from ..envs.scenario import Scenario
from ..envs.screening.filters import Filtered
from ..envs.screening.harm import predicted_harm
from ..envs.screening.profiles import Profiles, ProfileTable
from ..envs.screening.verdicts import Verdicts
from ..envs.shared import Ground
from .messages import PROTOCOL, Ask, Hello, Introduction, Look, Norms, Offer, Refusal, Reply, Request
from .remote import digest_of, require_federated

CPU = torch.device("cpu")


@dataclass(frozen=True)
class OwnRows:
    """Rows that a site holds, instead of rows drawn from the scenario's data.

    Attributes:
        x: Features, as the shared model takes them, ``(R, D)``.
        y: Labels, whole numbers from 0, ``(R,)``.
        lot: To which of the K lots each row belongs, whole numbers ``(R,)``. A lot may have no rows: it is never offered.
        n_classes: Number of classes C of the cooperative's data.
        tags: Each lot's provenance tag, by name; all of the first tag by default.
    """

    x: Tensor
    y: Tensor
    lot: Tensor
    n_classes: int
    tags: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> OwnRows:
        """Rows from a file of NumPy's ``.npz`` format with arrays ``x``, ``y``, ``lot`` and ``n_classes``, and ``tags`` if there are any.

        Raises:
            ValueError: If there is no such file, an array is missing, or holds no numbers.
        """
        try:
            with open(path, "rb") as stream:
                file = np.load(stream, allow_pickle=False)
                held = {name: file[name] for name in file.files}
        except OSError as error:
            raise ValueError(f"rows {str(path)!r} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:  # text, a single array, or pickled objects
            raise ValueError(f"rows {str(path)!r}: no .npz file of numbers: must have arrays x, y, lot and n_classes") from error
        if missing := [name for name in ("x", "y", "lot", "n_classes") if name not in held]:
            raise ValueError(f"rows {str(path)!r}: no array {', '.join(missing)}: must have x, y, lot and n_classes")
        for name in ("x", "y", "lot", "n_classes"):
            if held[name].dtype.kind not in "biuf" or (name == "n_classes") != (held[name].ndim == 0):
                what = "one whole number" if name == "n_classes" else "an array of numbers"
                raise ValueError(f"rows {str(path)!r}: {name} is of type {held[name].dtype}, shape {held[name].shape}: must be {what}")
        x, y, lot = (torch.from_numpy(held[name]) for name in ("x", "y", "lot"))
        tags = tuple(map(str, held["tags"])) if "tags" in held else ()
        return cls(x, y, lot, whole_number("n_classes", held["n_classes"].item(), 2), tags)

    def require(self, n_features: int, n_classes: int) -> None:
        """Refuse rows that the cooperative's model does not take.

        Raises:
            ValueError: If they have another number of features or classes.
        """
        for what, own, wanted in (("features", self.x.shape[-1], n_features), ("classes", self.n_classes, n_classes)):
            if own != wanted:
                raise ValueError(f"rows: there are {own} {what}, and the cooperative's model takes {wanted}")

    def as_lots(self, scenario: Scenario) -> DrawnLots:
        """The rows as the lots of a cooperative of one.

        Raises:
            ValueError: If a shape, a label, a lot or a tag does not fit.
        """
        n_lots, known = scenario.lots.per_principal, list(scenario.lots.tags)
        if self.x.dim() == 2 and not len(self.x):
            raise ValueError("rows: there are none")
        if self.x.dim() != 2 or self.y.shape != self.x.shape[:1] or self.lot.shape != self.y.shape:
            raise ValueError(
                f"rows: x is {tuple(self.x.shape)}, y {tuple(self.y.shape)}, lot {tuple(self.lot.shape)}: must be (R, D), (R,) and (R,)"
            )
        if not self.x.isfinite().all():
            raise ValueError("rows: x holds numbers that are not finite")
        for name, numbers, n in (("y", self.y, self.n_classes), ("lot", self.lot, n_lots)):
            if numbers.is_floating_point() or not ((numbers >= 0) & (numbers < n)).all():
                raise ValueError(f"rows: {name} must be whole numbers from 0 to {n - 1}")
        tags = self.tags or (tuple(known[:1]) * n_lots)
        if len(tags) not in (0, n_lots) or not set(tags) <= set(known):
            raise ValueError(f"rows: tags are {', '.join(tags)}: must be {n_lots} of {', '.join(known) or 'none'}")
        samples = torch.bincount(self.lot.long(), minlength=n_lots)
        n_rows = int(samples.max())
        x, y = self.x.new_zeros(1, 1, n_lots, n_rows, self.x.shape[1]).float(), torch.zeros(1, 1, n_lots, n_rows, dtype=torch.int64)
        for k in range(n_lots):
            own = self.lot == k
            x[0, 0, k, : int(samples[k])], y[0, 0, k, : int(samples[k])] = self.x[own].float(), self.y[own].long()
        nothing = torch.zeros(1, 1, n_lots)
        return DrawnLots(
            x=x,
            inputs=x,
            y=y,
            present=torch.arange(n_rows) < samples[None, :, None],
            corrupt=nothing.bool(),
            tags=torch.tensor([known.index(tag) for tag in tags] or [0] * n_lots)[None, None],
            samples=samples[None],
            rows=torch.zeros_like(y),
            severity=nothing.double(),
        )


@dataclass(frozen=True)
class _OwnVerdicts(Verdicts):
    """Everybody's verdicts on the updates of one principal alone, which is number ``place`` of N."""

    place: int = 0

    def of_owner(self, by_principal: Tensor) -> Tensor:
        """``(1, N, …)`` → ``(1, 1, …)``."""
        return by_principal[:, self.place, None]

    @property
    def own_admissible(self) -> Tensor:
        """bool ``(1, 1, K)``."""
        return self.admissible_to[..., self.place]


@dataclass(frozen=True)
class _Stage:
    """An episode as a site sees it."""

    keys: Tensor
    model: Model
    lots: DrawnLots
    profiles: Profiles


class Site:
    """One principal: its lots and its proxy.

    Args:
        scenario: The scenario that all members agreed upon, with everybody's profile.
        agent: The proxy's policy, or its name with arguments: ``"learned(path='out/run')"``, ``"honest"``. It decides from what it observes
            in a round, and remembers nothing from one to the next.
        place: Which of the N principals this is, from 0.
        rows: The rows that the site holds. By default they are drawn from the scenario's data by the episode's seed, as in the simulator.

    Raises:
        ValueError: If the scenario cannot be played in a federation, the policy was made for other observations or sees more than a proxy
            can, or there is no such principal.
    """

    def __init__(self, scenario: Scenario, agent: Agent | str, place: int, rows: OwnRows | None = None) -> None:
        require_federated(scenario)
        self.scenario = scenario
        last = scenario.principals - 1
        self.place = whole_number("partition-id", place, 0, last, f"the scenario's principals go from 0 to {last}")
        self.layout = ObservationLayout.of(scenario)
        self.agent = make(agent) if isinstance(agent, str) else agent
        if not isinstance(self.agent, Agent):
            raise ValueError(f"agent={agent!r}: must be an agent or its name")
        if self.agent.privileged:
            raise ValueError(f"agent {type(self.agent).__name__} looks into the simulator: no site can play it")
        self.agent.check_layout(self.layout)
        self.rows = rows
        self._digest = digest_of(scenario)
        self._stage: tuple[tuple[int, int], _Stage] | None = None
        self._made: tuple[Look, Proposals] | None = None

    def answer(self, request: Request) -> Reply:
        """Answer a request; one that cannot be answered is refused, with the reason."""
        try:
            match request:
                case Hello():
                    return self.introduce(request)
                case Look():
                    return self.look(request)
                case Ask():
                    return self.offer(request)
            raise ValueError(f"a site does not answer a {type(request).__name__}")
        except ValueError as error:
            return Refusal(self.place, " ".join(str(error).split()))

    def introduce(self, hello: Hello) -> Introduction:
        """Who this site is.

        Raises:
            ValueError: If the server is of another version, or has another scenario, or its model takes other rows than this site holds.
        """
        if hello.protocol != PROTOCOL:
            raise ValueError(
                f"the server is of another version: it has proxycoop {hello.version} (protocol {hello.protocol}), this site {__version__} "
                f"(protocol {PROTOCOL}): install the same"
            )
        if hello.scenario != self._digest:
            raise ValueError(
                f"the server plays another scenario than this site's {self.scenario.name!r} (digest {hello.scenario[:12]}…, here "
                f"{self._digest[:12]}…): use the same file"
            )
        if self.rows is not None:
            self.rows.require(hello.n_features, hello.n_classes)
        lots = self._staged(hello.seed, hello.episode).lots
        return Introduction(self.place, PROTOCOL, __version__, lots.samples[0].tolist(), lots.tags[0, 0].tolist())

    @plain_torch()
    def look(self, look: Look) -> Norms:
        """How long this site's updates are.

        Raises:
            ValueError: If the shared parameters do not fit the model.
        """
        stage = self._staged(look.seed, look.episode)
        norm = vector_norm(self._proposals(stage, look).updates, dim=-1)
        return Norms(self.place, look.t, float(seen_norms(look.theta, norm).sum()), int((norm < torch.inf).sum()))

    @plain_torch()
    def offer(self, ask: Ask) -> Offer:
        """The updates that the proxy offers.

        Raises:
            ValueError: If what the server tells does not fit the scenario.
        """
        stage = self._staged(ask.seed, ask.episode)
        proposals = self._proposals(stage, Look(ask.seed, ask.episode, ask.t, ask.theta))
        observations = self._observe(stage, proposals, ask)
        self.observations = observations
        chosen = self._choose(stage, observations, ask.t) & proposals.available[0, 0]
        return Offer(self.place, ask.t, {str(k): proposals.updates[0, 0, k] for k in chosen.nonzero()[:, 0].tolist()})

    def _choose(self, stage: _Stage, observations: Tensor, t: int) -> Tensor:
        """Which lots the proxy offers, bool ``(K,)``. A policy that draws takes the numbers that are drawn for this principal's place."""
        everybody = observations.new_zeros(1, self.scenario.principals, observations.shape[-1])
        everybody[0, self.place] = observations[0, 0]
        self.agent.begin(self.layout, stage.keys)
        self.agent.t = t
        return self.agent.act(everybody)[0, self.place, : self.layout.n_lots]

    def _observe(self, stage: _Stage, proposals: Proposals, ask: Ask) -> Tensor:
        """What the proxy sees, ``(1, 1, layout.size)``."""
        if set(ask.past) - {part.name for part in fields(Past)}:
            raise ValueError(f"the server tells {', '.join(sorted(ask.past))} of the past: it is of another version")
        theta, past = ask.theta, Past(**ask.past)
        norm = vector_norm(proposals.updates, dim=-1)
        finite = norm < torch.inf
        updates = torch.where(finite[..., None], proposals.updates, 0.0)
        directions = torch.cat([ask.value_gradients, past.step[:, None]], dim=1)
        products = predicted_harm(directions, updates)
        profiles = stage.profiles.begun(ask.start_losses).at(ask.value_losses)
        verdicts = _OwnVerdicts(products[..., :-1], norm, stage.lots.tags, profiles, place=self.place)
        memory = Memory(self.scenario, Items(None, self.layout.n_lots), self.layout, ask.reward_scale, theta, self.scenario.principals)
        memory.past = past
        own = verdicts.own_admissible
        look = Prospect(
            proposals=proposals,
            along=products[..., -1],
            verdicts=verdicts,
            filtered=Filtered(own, updates, own.to(norm)),
            available=proposals.available,
            value_gradients=ask.value_gradients,
            value_losses=ask.value_losses,
            left=profiles.nothing_limited if profiles.remaining is None else profiles.remaining,
            left_share=profiles.nothing_limited_in_shares if profiles.remaining_share is None else profiles.remaining_share,
            log_share=theta.new_zeros(1, 0, 0),
            validation_loss=ask.validation_loss,
            utility=ask.utility,
        )
        money = [seen.reshape(1, 1) for seen in ask.money]
        holds = profiles.holds[:, self.place, None]
        return memory.observe(ask.t, theta, look, holds, money, (), ask.mean_norm)

    def _proposals(self, stage: _Stage, look: Look) -> Proposals:
        """What the lots propose; kept until the next round, because two messages ask for it."""
        n_parameters = stage.model.n_parameters
        if look.theta.shape != (1, n_parameters) or look.theta.dtype != torch.float32:
            raise ValueError(
                f"the server's model has {look.theta.numel():,} parameters ({look.theta.dtype}), and this site's "
                f"{self.scenario.model.kind} has {n_parameters:,} (torch.float32): use the same scenario and version"
            )
        if self._made is not None:
            other = self._made[0]
            if (other.seed, other.episode, other.t) == (look.seed, look.episode, look.t) and other.theta.equal(look.theta):
                return self._made[1]
        made = self.scenario.substrate.propose(stage.model, look.theta, stage.lots, stage.keys, look.t)
        self._made = look, made
        return made

    def _staged(self, seed: int, episode: int) -> _Stage:
        if self._stage is None or self._stage[0] != (seed, episode):
            self._stage = (seed, episode), self._set(fold(torch.tensor([seed]), episode), episode)
        return self._stage[1]

    def _set(self, keys: Tensor, episode: int) -> _Stage:
        """An episode as it begins: this principal's lots, and everybody's profiles, dealt as in the simulator."""
        scenario, names = self.scenario, (list(self.scenario.values), list(self.scenario.lots.tags))
        table = ProfileTable(scenario.profiles, scenario.principals, *names, scenario.profiles_drawn, torch.float32, CPU)
        profiles = table.deal(fold(keys, Purpose.PROFILES))
        if self.rows is None:
            ground = Ground(scenario, torch.float32, CPU, episode % scenario.data.splits)
            owned = (profiles.holds.float() @ ground.protects.float()) > 0
            drawn = ground.lot_source.draw(keys, owned)
            assert isinstance(drawn, DrawnLots)
            model, lots = ground.model, drawn.seated([self.place])
        else:
            with torch.random.fork_rng(devices=[]):  # modules draw their parameters from torch's global generator
                torch.manual_seed(scenario.data.split_seed + episode % scenario.data.splits)
                model = scenario.model.build(self.rows.x.shape[1], self.rows.n_classes)
            lots = self.rows.as_lots(scenario)
        return _Stage(keys, model, lots.prepared(model.prepare), profiles)
