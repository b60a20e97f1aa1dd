"""Does a federation survive? The server's process is killed at random, again and again, and sites die in the middle of rounds.

The server is a process of its own, which SIGKILL ends at a random moment of a random round, and which is then started again with the same
folder and ledger. Sites are called within it by Flower's messages. In every exchange each of them may die before it answers, or after, and
come back later under another node id, as SuperNodes do. Run it in the environment that has flwr.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Message
from in_process import FaultyGrid, made, sites_of

from proxycoop.credit.ledger import Ledger
from proxycoop.envs.scenario import Scenario
from proxycoop.flower import Federation

RULE, SEED = "fedsv", 5


@dataclass
class Survival:
    """What was killed, and what came of it.

    Attributes:
        kills: Kills of the server.
        between: Of these, kills while no round was asked for: while it started, or played rounds again.
        site_deaths: Deaths of sites.
        rounds: Rounds in the ledger at the end.
        acknowledged: Rounds that a server that was killed later had reported as done.
        redone: Rounds whose sites were asked again, because a kill came before what they answered was kept.
        refusals: Answers that were missing, and that the ledger tells of.
        seconds: It took.
        problems: Whatever was lost, doubled, or does not verify.
    """

    kills: int = 0
    between: int = 0
    site_deaths: int = 0
    rounds: int = 0
    acknowledged: int = 0
    redone: int = 0
    refusals: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class DyingGrid(FaultyGrid):
    """Sites that die with some probability in every exchange, and come back for the next round."""

    def __init__(self, cooperative: Scenario, tell: Connection, probability: float) -> None:
        super().__init__(sites_of(cooperative, "all"))
        self.tell, self.probability, self.draw = tell, probability, random.Random(os.urandom(16))
        self.dead: dict[int, object] = {}
        self.names = 1000

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Call the sites that live, tell of the exchange, and let some die."""
        messages = list(messages)
        self.tell.send(("asks", messages[0].metadata.message_type if messages else ""))
        if messages and messages[0].metadata.message_type.startswith("train"):
            replies = self._answers(messages, timeout)
            for context in self.dead.values():  # those who died come back for the next round
                self.names += 1
                self.contexts[self.names] = context
            self.dead = {}
            return replies
        return self._answers(messages, timeout)

    def _answers(self, messages: list[Message], timeout: float | None) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node not in self.contexts:
                continue
            dies = self.draw.random() < self.probability
            answers = not dies or self.draw.random() < 0.5
            if answers:
                replies.extend(super().send_and_receive([message], timeout=timeout))
            if dies:
                self.tell.send(("site died", node))
                self.dead[node] = self.contexts.pop(node)
        return replies


def serve_until_the_end(cooperative: Scenario, folder: Path, tell: Connection, probability: float) -> None:
    """The server's process."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    federation = Federation(cooperative, RULE, seed=SEED, folder=folder / "rounds", ledger=folder / "ledger.db", wait=0.0)
    started = len(federation.archive)
    grid = DyingGrid(cooperative, tell, probability if started or (folder / "rounds" / "start.json").exists() else 0.0)
    federation.run(grid, lambda _: (setattr(grid, "probability", probability), tell.send(("done", len(federation.engine.history) - 1))))
    tell.send(("over", started))


def survive(folder: Path, rounds: int, kills: int, probability: float, seed: int) -> Survival:
    """Kill the server so often over so many rounds, and look at what is there in the end."""
    cooperative, draw, found = made(horizon=rounds), random.Random(seed), Survival()
    sites_of(cooperative)
    Federation(cooperative, RULE, seed=SEED, folder=folder / "warm")  # what is made once is made before the processes fork
    start, fork, done, asked = time.monotonic(), multiprocessing.get_context("fork"), set[int](), list[int]()
    targets = sorted(draw.choices(range(rounds - 1), k=kills))
    pace, over = 0.05, False
    while not over:
        target = targets[0] if targets else None
        ours, theirs = fork.Pipe()
        process = fork.Process(target=serve_until_the_end, args=(cooperative, folder, theirs, probability))
        process.start()
        theirs.close()
        at, begun, deadline = -1, time.monotonic(), None
        if target is not None and draw.random() < 0.2:
            deadline = time.monotonic() + draw.uniform(0.0, 4 * pace)  # whatever it is doing
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                if not ours.poll(left):
                    os.kill(process.pid, signal.SIGKILL)
                    found.kills, found.between = found.kills + 1, found.between + (at < 0)
                    targets.pop(0)
                    break
                what, which = ours.recv()
            except EOFError:
                process.join()
                if process.exitcode:
                    found.problems.append(f"the server ended with code {process.exitcode}")
                    over = True
                break
            if what == "done":
                done.add(which)
            elif what == "site died":
                found.site_deaths += 1
            elif what == "over":
                over = True
            elif which.startswith("query"):
                at = len(list((folder / "rounds").glob("round-*.pt")))
                asked.append(at)
                if at:
                    pace = 0.8 * pace + 0.2 * min((time.monotonic() - begun) / (at + 1), 1.0)
                if target is not None and at >= target and deadline is None:
                    deadline = time.monotonic() + draw.uniform(0.0, pace)
        process.join()
        ours.close()
    found.seconds, found.acknowledged = time.monotonic() - start, len(done)
    found.redone = len(asked) - len(set(asked))
    again = Federation(cooperative, RULE, seed=SEED, folder=folder / "rounds", ledger=folder / "ledger.db")
    audit(again, folder / "ledger.db", done, found)
    return found


def audit(federation: Federation, ledger: Path, done: set[int], found: Survival) -> None:
    """What the ledger and the folder say in the end. First all rounds are played again from their files, and found in the ledger.

    Args:
        federation: With the folder and the ledger, and an episode that is over.
        ledger: The ledger's file.
        done: Rounds that were reported as done.
        found: Gets the problems and the counts.
    """
    decided = federation.run(FaultyGrid([])).history
    name = federation.books.cooperative
    with Ledger(ledger) as book:
        found.problems += [str(problem) for problem in book.verify().problems]
        entries = list(book.entries(name))
        last = book.statement(name, "proxy_0").rounds[-1]
    rounds = [entry.fields["round"] for entry in entries if entry.table == "rounds"]
    found.rounds = len(rounds)
    if rounds != list(range(federation.engine.horizon)):
        found.problems.append(f"the ledger has rounds {rounds}")
    if lost := done - set(rounds):
        found.problems.append(f"rounds {sorted(lost)} were acknowledged, and the ledger has them not")
    earned, paid = (sum(int(e.fields["amount"]) for e in entries if e.table == table) for table in ("revenue", "payouts"))
    keys = [entry.fields["key"] for entry in entries if entry.table == "settlements"]
    if len(keys) != len(set(keys)) or earned != paid:
        found.problems.append(f"{earned} minor units came in, and {paid} were paid in settlements {keys}")
    found.refusals = sum(len(reasons) for t in range(len(decided)) for reasons in federation.archive.read(t).refused.values())
    if last.of_all["utility"] != float(decided[-1].utility[0]):
        found.problems.append("the ledger's last utility is not that of the rounds in the folder")


def main() -> None:
    """Kill, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    lines = [
        "| sites die with probability | kills of the server | of these between rounds | deaths of sites | rounds | acknowledged before the "
        "end | asked again | answers missing | lost, doubled, or not verified | s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    bad = False
    for probability in (0.0, 0.05):
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                it = survive(Path(folder), given.rounds, given.kills, probability, seed)
            bad = bad or bool(it.problems)
            numbers = (it.kills, it.between, it.site_deaths, it.rounds, it.acknowledged, it.redone, it.refusals)
            lines.append(f"| {probability} | {' | '.join(map(str, numbers))} | {'; '.join(it.problems) or 0} | {it.seconds:.0f} |")
            print(lines[-1], flush=True)
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(bad)


if __name__ == "__main__":
    main()
