"""The server's side of a federation: it asks the sites, screens, credits and settles, and writes all of it to the ledger."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import INFO, WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid
from torch import Tensor

from .. import __version__
from ..checks import real_number, whole_number
from ..credit import CreditRule
from ..envs.participation import Attendance
from ..envs.records import RoundResult
from ..envs.scenario import Scenario, load
from .archive import Archive, Came
from .decided import decisions
from .messages import ACTION, PROTOCOL, Ask, Hello, Introduction, Look, Norms, Offer, Refusal, Reply, Request, from_records, to_records
from .remote import MOST_ROWS, RemoteEngine, digest_of, too_long

if TYPE_CHECKING:  # a database library is slow to import, and a site needs none
    from ..credit.ledger import Ledger
    from ..envs.bookkeeping import Bookkeeper

_OF_AGENT = ("contributed", "admitted", "n_contributed", "n_admitted", "lot_credit", "credit", "credited", "spent")
_ALONE = ("step", "utility", "credited_from")


class Federation:
    """An episode of a cooperative whose members are sites. One SuperNode is one principal with its K lots.

    In a round the server asks all sites how long their updates are, and then what they offer, see
    :mod:`~proxycoop.flower.messages`. With what came in it plays the round as the simulator does, and writes it to the ledger: credit,
    revenue, payouts, and what was decided, see :func:`~proxycoop.flower.decided.decisions`. What goes wrong with one site does not stop the
    others: an answer that is missing, late, of another round, under another's id, or of another shape counts for nothing, and the ledger
    says why. An update that is not finite, or longer than ``largest_norm``, is offered and never admitted.

    The episode survives the server. What came in for a round is in ``folder`` before the round is played, and the round is in the ledger
    in one transaction that names the file's digest. A server that starts anew with the same folder plays those rounds again, finds them in
    the ledger, and goes on with the next. So a round is whole or is asked again, and nobody is paid twice.

    Args:
        scenario: The scenario, its name, or its file; see ``require_federated``. To keep a ledger it needs a
            ``settlement``.
        credit: A credit rule or its name, as for the engine.
        seed: Seed of the episode: of who holds which profile, of what rules and policies draw and, where sites have no rows of their own,
            of the lots.
        episode: Its number among those of the seed.
        folder: Where rounds are kept; one folder an episode.
        ledger: A ledger, its file or its database's URL; none by default.
        name: First part of the cooperative's name in the ledger; by default ``SCENARIO/RULE``.
        timeout: Seconds to wait for answers to one message.
        wait: Seconds to wait for all sites before the first round, and before one of which no site is known, as after a new start.
        at_once: How many sites are asked at the same time; all by default. For many SuperNodes on one machine: Flower starts a process for
            every message.
        largest_norm: An update that is longer is taken for a fault.

    Attributes:
        engine: The server's engine. Its ``history`` has the rounds.
        nodes: Flower's id of the node of each principal that is there.

    Raises:
        ValueError: If the scenario, the rule or the ledger cannot be used, or a number is out of range.
    """

    def __init__(
        self,
        scenario: Scenario | str | Path,
        credit: CreditRule | str = "shapley",
        *,
        seed: int,
        folder: str | Path,
        episode: int = 0,
        ledger: Ledger | str | Path | None = None,
        name: str | None = None,
        timeout: float = 60.0,
        wait: float = 60.0,
        at_once: int | None = None,
        largest_norm: float = 1e6,
    ) -> None:
        scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
        self.engine = RemoteEngine(scenario, credit)
        self.seed, self.episode = whole_number("seed", seed, 0, 2**63 - 1), whole_number("episode", episode, 0, 2**63 - 1)
        self.timeout, self.wait = real_number("timeout", timeout, 0), real_number("wait", wait, 0)
        if not self.timeout:
            raise ValueError("timeout=0: no site could answer; must be a positive number of seconds")
        self.at_once = None if at_once is None else whole_number("at_once", at_once, 1)
        self.largest_norm = real_number("largest_norm", largest_norm, 0)
        self.archive = Archive(folder)
        self._decided: dict[int, dict[str, Any]] = {}
        self.books = None if ledger is None else self._books(ledger, name)
        self._digest = digest_of(scenario)
        self.nodes: dict[int, int] = {}

    def run(self, grid: Grid, on_round: Callable[[RoundResult], None] | None = None) -> RemoteEngine:
        """Play the episode to its end: from its beginning, or from where it was stopped.

        Args:
            grid: Flower's.
            on_round: Called after every round that is in the ledger, with its result.

        Returns:
            The engine, for its ``history``, ``theta`` and ``test()``.

        Raises:
            ValueError: If sites are missing or do not fit before the first round, the folder or the ledger cannot be written or does not
                belong to this episode, or another server is at work in the folder.
        """
        with self.archive.held(), self._books_closed():
            self._begin(grid)
            while self.engine.t < self.engine.horizon:
                t = self.engine.t
                if t >= len(self.archive):
                    self.archive.write(t, self._ask(grid, t))
                result = self._play(t)
                if on_round is not None:
                    on_round(result)
        return self.engine

    def _books(self, ledger: Ledger | str | Path, name: str | None) -> Bookkeeper:
        from ..envs.bookkeeping import Bookkeeper  # with a database library

        return Bookkeeper(self.engine, ledger, name, self._decided.get)

    @contextmanager
    def _books_closed(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.books is not None:
                self.books.close()

    def _begin(self, grid: Grid) -> None:
        """Find the sites, and begin the episode with what they say, or said when it began."""
        mine = {"scenario": self._digest, "rule": self.engine.rule_name, "seed": self.seed, "episode": self.episode}
        facts = there = self.archive.start()
        if len(self.archive):
            log(INFO, "rounds 0 to %d are played again from their files in %s", len(self.archive) - 1, self.archive.folder)
        if facts is None:
            found = self._find(grid)
            facts = mine | {
                "samples": [found[i].samples for i in range(self.engine.num_agents)],
                "tags": [found[i].tags for i in range(self.engine.num_agents)],
                "recorded": self.books is not None,
            }
        for name, here in mine.items():
            if facts.get(name) != here:
                raise ValueError(
                    f"folder {str(self.archive.folder)!r} holds an episode with {name} {facts.get(name)}, not {here}: use another"
                )
        self.engine.begin(self.seed, self.episode, torch.tensor(facts["samples"]), torch.tensor(facts["tags"]))
        if there is None:  # not before the engine took them, or what one site says wrongly would stay
            self.archive.begin(facts)
        self._require_all_rounds(begun_with_ledger=facts.get("recorded") is True)

    def _require_all_rounds(self, begun_with_ledger: bool) -> None:
        """Refuse to go on where the ledger has rounds that the folder has not: they would be asked again, and come out otherwise.

        And where the folder has rounds that the ledger must have had, and has not any more: members would be paid again for them.
        """
        if self.books is None:
            return
        try:
            recorded = self.books.ledger.statement(self.books.cooperative, "proxy_0").rounds
        except ValueError:  # there is no such cooperative yet; if something else is wrong, the first round says so
            recorded = ()
        if begun_with_ledger and len(recorded) < len(self.archive) - 1:  # a round is in the ledger before the next one is asked
            raise ValueError(
                f"folder {str(self.archive.folder)!r} has {len(self.archive)} rounds that were recorded, and the ledger has "
                f"{len(recorded)} of {self.books.cooperative!r}: put the ledger back; in another one they would be paid again"
            )
        for one in recorded:
            if one.round >= len(self.archive):
                raise ValueError(
                    f"the ledger has round {one.round} of {self.books.cooperative!r}, and folder {str(self.archive.folder)!r} has "
                    f"{len(self.archive)} rounds: put the folder back, or record under another name"
                )
            if one.of_all.get("file") != (digest := self.archive.digest(one.round)):
                raise ValueError(
                    f"the file of round {one.round} in {str(self.archive.folder)!r} is not the one that the ledger names: "
                    f"{digest[:12]}… instead of {str(one.of_all.get('file'))[:12]}…: put it back from a backup"
                )

    def _play(self, t: int) -> RoundResult:
        """Play a round from its file, and write it to the ledger."""
        came = self.archive.read(t)
        result = self.engine.play(came.offered, came.updates)
        self._decided[t] = {**decisions(self.engine, result, came.refused), "file": self.archive.digest(t)}
        if self.books is not None:
            self.books.write()
        offered, entered = int(result.contributed.sum()), int(result.admitted.sum())
        log(INFO, "round %d: %d updates offered, %d entered, utility %.4f", t, offered, entered, float(result.utility))
        return result

    def _find(self, grid: Grid) -> dict[int, Introduction]:
        """All sites, by their principal.

        Raises:
            ValueError: If one is missing, two are the same principal, or one does not fit.
        """
        n = self.engine.num_agents
        self._await(grid)
        found: dict[int, Introduction] = {}
        said: list[str] = []
        hellos = dict.fromkeys(grid.get_node_ids(), self._hello)
        replies = self._exchange(grid, hellos, "query")
        for node, reply in replies.items():
            if isinstance(reply, Introduction):
                if (problem := self._misfit(reply)) is not None:
                    raise ValueError(f"node {node}: {problem}")
                if reply.place in self.nodes:
                    raise ValueError(
                        f"nodes {self.nodes[reply.place]} and {node} both have partition-id {reply.place}: each needs its own, 0 to {n - 1}"
                    )
                self.nodes[reply.place], found[reply.place] = node, reply
            elif isinstance(reply, Refusal):
                who = f"the site of proxy_{reply.place} (node {node})" if reply.place >= 0 else f"node {node}"
                raise ValueError(f"{who} refuses: {reply.reason}")
            else:
                said.append(f"node {node} {reply if isinstance(reply, str) else 'answered something else'}")
        if missing := [i for i in range(n) if i not in found]:
            more = f" ({'; '.join(said)})" if said else ""
            raise ValueError(
                f"no SuperNode has partition-id {', '.join(map(str, missing))}: the cooperative has {n} principals, and "
                f"{len(found)} of them answered{more}"
            )
        return found

    def _await(self, grid: Grid) -> None:
        """Wait until as many nodes are there as there are sites, or the time is over."""
        until, n, told = time.monotonic() + self.wait, self.engine.num_agents, -1
        while (there := len(list(grid.get_node_ids()))) < n and time.monotonic() < until:
            if there != told:
                log(INFO, "%d of %d SuperNodes are there: waiting up to %g s", there, n, self.wait)
                told = there
            time.sleep(0.2)

    @property
    def _hello(self) -> Hello:
        splits = self.engine.splits
        return Hello(PROTOCOL, __version__, self._digest, self.seed, self.episode, splits.n_features, splits.n_classes)

    def _misfit(self, introduction: Introduction) -> str | None:
        """What is wrong with what a site says of itself."""
        n, k = self.engine.num_agents, self.engine.num_lots
        if introduction.protocol != PROTOCOL:
            return (
                f"it is of another version: it has proxycoop {introduction.version} (protocol {introduction.protocol}), this server "
                f"{__version__} (protocol {PROTOCOL}): install the same"
            )
        if not 0 <= introduction.place < n:
            return f"partition-id {introduction.place}: must be from 0 to {n - 1}"
        if len(introduction.samples) != k or len(introduction.tags) != k:
            return f"proxy_{introduction.place} has {len(introduction.samples)} lots: must have {k}"
        most = {"samples": MOST_ROWS, "tags": max(len(self.engine.scenario.lots.tags), 1) - 1}
        for name, largest in most.items():
            said = getattr(introduction, name)
            if not all(type(one) is int and 0 <= one <= largest for one in said):
                return f"{name} of the lots of proxy_{introduction.place} are {said}: must be whole numbers from 0 to {largest}"
        return None

    def _greet(self, grid: Grid) -> None:
        """Find sites that came back under another node id, as a SuperNode has after a restart."""
        there = set(grid.get_node_ids())
        for place, node in list(self.nodes.items()):
            if node not in there:
                del self.nodes[place]
        if not self.nodes:  # else all rounds that are left would be played with nobody, at once
            self._await(grid)
            there = set(grid.get_node_ids())
        new = there - set(self.nodes.values())
        if not new or len(self.nodes) == self.engine.num_agents:
            return
        for node, reply in self._exchange(grid, dict.fromkeys(new, self._hello), "query").items():
            if not isinstance(reply, Introduction) or (problem := self._misfit(reply)) is not None:
                why = problem if isinstance(reply, Introduction) else reply.reason if isinstance(reply, Refusal) else reply
                log(WARNING, "node %d is no site of this federation: %s", node, why)
            elif reply.place in self.nodes:
                log(WARNING, "node %d is not taken as proxy_%d, whose site is node %d", node, reply.place, self.nodes[reply.place])
            elif (reply.samples, reply.tags) != self._lots_of(reply.place):
                log(WARNING, "node %d is not taken as proxy_%d, whose lots were others when the episode began", node, reply.place)
            else:
                self.nodes[reply.place] = node

    def _lots_of(self, place: int) -> tuple[list[int], list[int]]:
        lots = self.engine.lots
        return lots.samples[place].tolist(), lots.tags[0, place].tolist()

    def _ask(self, grid: Grid, t: int) -> Came:
        """Ask the sites for a round."""
        self._greet(grid)
        engine, refused = self.engine, defaultdict[int, list[tuple[int | None, str]]](list)
        look = Look(self.seed, self.episode, t, engine.theta)
        norms = self._answers(grid, dict.fromkeys(self.nodes, look), Norms, t, "query", refused)
        for i, one in list(norms.items()):
            if not (0 <= one.total < math.inf and 0 <= one.n_finite <= engine.num_lots):
                refused[i].append((None, f"said that its updates have norm {one.total:g}, {one.n_finite} of them"))
                del norms[i]
        n_finite = max(sum(one.n_finite for one in norms.values()), 1)
        mean_norm = torch.tensor([[[sum(one.total for one in norms.values()) / n_finite]]], dtype=torch.float32)
        asks = {i: self._ask_of(i, t, mean_norm) for i in norms}
        offers = self._answers(grid, asks, Offer, t, "train", refused)
        shape = (1, engine.num_agents, engine.num_lots)
        offered, updates = torch.zeros(shape, dtype=torch.bool), torch.zeros(*shape, engine.theta.shape[1])
        for i, offer in offers.items():
            if (problem := self._unfit(offer, i)) is not None:
                refused[i].append((None, problem))
                continue
            for name, update in offer.updates.items():
                k = int(name)
                offered[0, i, k], updates[0, i, k] = True, update
                if too_long(update, self.largest_norm):
                    norm = float(update.double().norm())
                    refused[i].append((k, f"its update has norm {norm:.4g}, above {self.largest_norm:g}, and is taken for a fault"))
                    updates[0, i, k] = torch.nan
                elif not update.isfinite().all():
                    refused[i].append((k, "its update is not finite"))
                    updates[0, i, k] = torch.nan
        for i in range(engine.num_agents):
            if i not in self.nodes and i not in refused:
                refused[i].append((None, "no SuperNode of it is there"))
        for i, reasons in sorted(refused.items()):
            for lot, reason in reasons:
                log(WARNING, "round %d: proxy_%d%s: %s", t, i, "" if lot is None else f", lot {lot}", reason)
        return Came(offered, updates, dict(refused))

    def _unfit(self, offer: Offer, i: int) -> str | None:
        """What is wrong with an offer, whose updates would not be updates of the model."""
        shape = (self.engine.theta.shape[1],)
        for name, update in offer.updates.items():
            if name not in map(str, range(self.engine.num_lots)):
                return f"offered lot {name!r}: its lots go from 0 to {self.engine.num_lots - 1}"
            if tuple(update.shape) != shape or update.dtype != torch.float32:
                return f"sent an update of shape {tuple(update.shape)} ({update.dtype}): must be {shape} (torch.float32)"
            if not self.engine.lots.filled[0, i, int(name)]:
                return f"offered lot {name}, which has no rows"
        return None

    def _ask_of(self, i: int, t: int, mean_norm: Tensor) -> Ask:
        """What the cooperative announces, and what the server knows of principal i."""
        engine, look = self.engine, self.engine.prospect
        past = engine.past
        own = past.of(Attendance(torch.tensor([[i]]), engine.num_agents))
        said = {name: getattr(past, name) for name in _ALONE} | {name: getattr(own, name) for name in _OF_AGENT}
        said["credited_all"] = past.credited.sum(dim=1, keepdim=True)
        said["offered"] = past.contributed.sum(dim=(1, 2))
        said["entered"] = past.admitted.sum(dim=(1, 2), dtype=look.utility.dtype)
        money = () if engine.treasury is None or not engine.layout.settles else engine.treasury.features(t, engine.device, engine.dtype)
        return Ask(
            seed=self.seed,
            episode=self.episode,
            t=t,
            theta=engine.theta,
            value_gradients=look.value_gradients,
            value_losses=look.value_losses,
            start_losses=engine.initial_value_losses,
            validation_loss=look.validation_loss,
            utility=look.utility,
            mean_norm=mean_norm,
            money=torch.tensor([float(one[0, i]) if isinstance(one, Tensor) else float(one) for one in money]),
            reward_scale=float(engine.reward_scale),
            past=said,
        )

    def _answers(
        self, grid: Grid, requests: Mapping[int, Request], kind: type[Any], t: int, category: str, refused: dict[int, Any]
    ) -> dict[int, Any]:
        """The sites' answers by principal, without those that are refused, whose reasons are noted."""
        places = {self.nodes[i]: i for i in requests}
        twice: list[int] = []
        replies = self._exchange(grid, {node: requests[i] for node, i in places.items()}, category, twice)
        answers: dict[int, Any] = {}
        for node, i in places.items():
            reply = replies[node]
            if isinstance(reply, str):
                refused[i].append((None, reply))
            elif isinstance(reply, Refusal):
                refused[i].append((None, f"does not answer: {reply.reason}"))
            elif not isinstance(reply, kind):
                refused[i].append((None, f"answered with {type(reply).__name__}: must be {kind.__name__}"))
            elif reply.place != i:
                refused[i].append((None, f"answered under the id of {reply.place}, and its node is that of proxy_{i}"))
            elif reply.t != t:
                refused[i].append((None, f"answered about round {reply.t}"))
            else:
                answers[i] = reply
                if node in twice:
                    refused[i].append((None, "answered more than once: the first answer counts"))
        return answers

    def _exchange(
        self, grid: Grid, requests: Mapping[int, Request], category: str, twice: list[int] | None = None
    ) -> dict[int, Reply | str]:
        """The nodes' replies, or what was wrong with them in words."""
        messages = [
            Message(to_records(request), dst_node_id=node, message_type=f"{category}.{ACTION}", ttl=self.timeout)
            for node, request in requests.items()
        ]
        replies: dict[int, Reply | str] = {}
        some = self.at_once or max(len(messages), 1)
        for part in (messages[first : first + some] for first in range(0, len(messages), some)):
            began = time.monotonic()
            for message in grid.send_and_receive(part, timeout=self.timeout):
                node = message.metadata.src_node_id
                if node not in requests:
                    continue
                if node in replies:
                    if twice is not None and node not in twice:
                        twice.append(node)
                    continue
                replies[node] = _read(message)
            waited = time.monotonic() - began
            silent = f" within {self.timeout:g} s" if waited >= self.timeout else f"; Flower gave it up after {waited:.0f} s"
            for message in part:
                replies.setdefault(message.metadata.dst_node_id, f"did not answer{silent}")
        return replies


def _read(message: Message) -> Reply | str:
    if message.has_error():
        return "failed: " + " ".join(str(message.error.reason or f"error {message.error.code}").split())
    try:
        reply: Any = from_records(message.content)
    except ValueError as error:
        return f"sent what cannot be read: {error}"
    return reply  # type: ignore[no-any-return]
