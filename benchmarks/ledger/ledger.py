"""Whether a ledger can be trusted when processes are killed, when several write at the same time, and when rows are tampered with.

``crash``: a process writes rounds of 16 members, revenue and settlements. It acknowledges each on a pipe once the call has returned. It is
killed with SIGKILL: after a time, at one of its SQL statements that write, or while it commits. After each kill the ledger is opened again.
The chain must verify. The rows must be, field by field, those of all acknowledged operations, once each; the operation that was under way
may be there too. Payouts are computed a second time from the credits. Then the next process continues with the first operation that was not
acknowledged. The ledger must tell it correctly whether that operation was already recorded.

``writers``: processes write to one cooperative at the same time, and then each to its own. Every tenth round is recorded by a second
process too, and exactly one of the two must be told that it is new. Afterwards the rows must be those acknowledged as new, and no call may
have failed. One writer alone, and one that does not wait for the disk, show what limits the speed.

``tamper``: rows are changed without the ledger's knowledge: every column of every table, and single bytes in SQLite's file. Also, the last
rows are deleted, and one row is rewritten with all later hashes. A chain alone cannot detect these two; a head that was kept elsewhere
does.

Run: ``python benchmarks/ledger/ledger.py crash|writers|tamper [--url URL] [--markdown FILE]``. Without a URL: SQLite in a temporary
folder, and PostgreSQL too where the variable PROXYCOOP_POSTGRES holds the URL of a database (``.ci/postgres`` starts a server and sets
it). The command creates databases of its own beside the given one, and drops them. It fails if anything was lost, recorded twice, wrongly
accepted or wrongly refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cases import MEMBERS, databases
from crash import crash, table_of_crashes
from tamper import table_of_tampering, tamper
from writers import RACES, race, table_of_races

from proxycoop.files import write_text


def main(words: Sequence[str] | None = None) -> None:
    """Run a demonstration, print its figures, and fail if there was a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of = {name: commands.add_parser(name) for name in ("crash", "writers", "tamper")}
    for one in of.values():
        one.add_argument("--url", help="sqlite:///path or postgresql://user@host/database")
        one.add_argument("--seed", type=int, default=0, help="of what is drawn")
        one.add_argument("--markdown", type=Path, help="write the table into this file")
    of["crash"].add_argument("--kills", type=int, default=300)
    of["writers"].add_argument("--processes", type=int, default=8)
    of["writers"].add_argument("--seconds", type=float, default=30.0, help="for how long they write")
    of["writers"].add_argument("--members", type=int, default=16, choices=range(1, len(MEMBERS) + 1), metavar="1…16", help="of a round")
    of["tamper"].add_argument("--rows", type=int, default=10_000, help="of the large cooperative, at least")
    of["tamper"].add_argument("--trials", type=int, default=400, help="values that are changed")
    of["tamper"].add_argument("--bytes", type=int, default=400, help="bytes of SQLite's file that are changed")
    given = parser.parse_args(words)
    text, problems = COMMANDS[given.command](given)
    sys.stdout.write(f"\n{text}")
    if given.markdown is not None:
        write_text(given.markdown, text)
    if problems:
        sys.exit("\n".join([f"{len(problems)} problems:", *problems[:20]]))


def run_crash(given: argparse.Namespace) -> tuple[str, list[str]]:
    """The table, and the problems."""
    crashes = {name: crash(url, given.kills, given.seed) for name, url in databases(given.url)}
    return table_of_crashes(crashes), [f"{name}: {one}" for name, result in crashes.items() for one in result.problems]


def run_writers(given: argparse.Namespace) -> tuple[str, list[str]]:
    """The table, and the problems."""
    races = {}
    for name, url in databases(given.url):
        for way, how in RACES.items():
            races[name, way] = race(url, **{"processes": given.processes, "seconds": given.seconds, "members": given.members, **how})
    return table_of_races(races, given.processes), [
        f"{name}, {way}: {one}" for (name, way), result in races.items() for one in result.problems
    ]


def run_tamper(given: argparse.Namespace) -> tuple[str, list[str]]:
    """The table, and the problems."""
    tampered = {name: tamper(url, given.rows, given.trials, given.bytes, given.seed) for name, url in databases(given.url)}
    return table_of_tampering(tampered), [f"{name}: {one}" for name, result in tampered.items() for one in result.problems]


COMMANDS = {"crash": run_crash, "writers": run_writers, "tamper": run_tamper}

if __name__ == "__main__":
    main()
