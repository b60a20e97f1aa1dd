"""The commands ``proxycoop ledger``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...text import one_line
from ..terminal import say, show
from .options import OverwriteOption, assigned, ledger_files, origins_of, outputs_of
from .strict_command import App

if TYPE_CHECKING:  # the commands import what they need: `--help` must not wait for torch
    from ...credit.ledger.chain import Head
    from ...credit.ledger.ledger import Cooperative, Ledger
    from ...credit.money.money import Currency
    from ...credit.money.settlement import SettlementPolicy
    from ..outputs import Outputs

ledger = App(
    help="Keep the books of a cooperative: credit, revenue and payouts. Entries are only ever added.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

LedgerArgument = Annotated[
    str, typer.Argument(metavar="LEDGER", help="Path of an SQLite file, or a URL such as postgresql://user@host/database.")
]
CooperativeOption = Annotated[
    str | None, typer.Option("--cooperative", "-c", help="Name of the cooperative. [default: the ledger's, if it has only one]")
]
RevenueOption = Annotated[str | None, typer.Option("--revenue", help="What came in, in major units, such as 12.30.")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="A name for this entry, such as an invoice number. A repeat with the same key is not counted again."),
]


@ledger.command(
    "init",
    epilog="Examples: `proxycoop ledger init books.db -c clinics --member Ada --member Bo` · `proxycoop ledger init books.db -c clinics "
    "--members names.txt --currency JPY --set decay=.9 --set floor=100` · `proxycoop ledger init books.db --member Cy` (joins later)",
)
def init(
    where: LedgerArgument,
    cooperative: CooperativeOption = None,
    member: Annotated[list[str] | None, typer.Option("--member", help="Name of a member. May be repeated.")] = None,
    members: Annotated[Path | None, typer.Option("--members", help="Text file of members' names, one a line.")] = None,
    currency: Annotated[
        str | None, typer.Option("--currency", help="Code of the currency. [default: EUR, or what the cooperative has]")
    ] = None,
    exponent: Annotated[
        int | None,
        typer.Option("--exponent", help="Decimals of the currency, 0 to 18. [default: ISO 4217's; 2 for codes that are not in it]"),
    ] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="YAML file: how the cooperative settles.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the policy, such as `--set decay=.9`. Floor and cap are in minor units. May be repeated."),
    ] = None,
) -> None:
    """Create a cooperative, and the ledger if there is none. If the cooperative exists, new members join it.

    A cooperative's currency and policy cannot be changed later. Policy settings: `split` (credit or equal), `decay`, `early`, `solidarity`,
    `floor` and `cap` (in minor units, such as cents), `reserve`, `clawback`.
    """
    from ...credit.ledger.ledger import Ledger
    from ...credit.ledger.names import checked_name

    names = [*(member or []), *(_lines(members) if members is not None else [])]
    given = policy_of(policy, overrides)
    with Ledger(where) as books:
        try:
            known = {one.name: one for one in books.cooperatives()}
        except ValueError as error:
            if cooperative is None:
                raise ValueError(f"{error}; to create a cooperative, name it with --cooperative NAME") from error
            known = {}  # there is no ledger yet; if something else is wrong, creating it says so
        if cooperative is None and len(known) != 1:
            raise ValueError(_which(books, list(known)))
        name = checked_name("cooperative", next(iter(known)) if cooperative is None else cooperative)
        old = known.get(name)
        now = books.init(name, names, currency, exponent, given if policy is not None or overrides else None)
        joined = len(now.members) - (0 if old is None else len(old.members))
        what = "created" if old is None else "exists"
        _say(f"{what}: {now.name}, {len(now.members)} members ({joined} of them new), pays in {now.currency.code}")
        _say(f"next: proxycoop ledger record {books.name} --round 0 --credit NAME=NUMBER …")


@ledger.command(
    "record",
    epilog="Examples: `proxycoop ledger record books.db --round 7 --credit Ada=.3 --credit Bo=-.1 --revenue 12.30` · "
    "`proxycoop ledger record books.db --file credits.csv` · `proxycoop ledger record books.db --revenue 100 --key invoice-7`",
)
def record(
    where: LedgerArgument,
    cooperative: CooperativeOption = None,
    round: Annotated[str | None, typer.Option("--round", help="The round's number, from 0. [default: revenue of no round]")] = None,
    credit: Annotated[
        list[str] | None,
        typer.Option("--credit", help="NAME=NUMBER, in the utility's unit. May be repeated. A member that is not named has none."),
    ] = None,
    revenue: RevenueOption = None,
    key: KeyOption = None,
    file: Annotated[Path | None, typer.Option("--file", help="CSV file of many rounds.")] = None,
) -> None:
    """Record a round's credit and revenue, many rounds from a file, or revenue that belongs to no round.

    Recording the same round again changes nothing. If anything differs, it is refused. The file has the columns `round`, `member`, `credit`
    and optionally `revenue`: in major units, in one of a round's lines or the same in all. It may be a `credits.csv` of
    `proxycoop ledger export`. The whole file is checked before the first round is recorded; each round is a transaction of its own.
    """
    from .credit_file import round_of

    if file is not None and (round is not None or credit or revenue is not None or key is not None):
        raise ValueError("--file takes rounds, credits and revenue from the file: leave out --round, --credit, --revenue and --key")
    if file is None and round is None and credit:
        raise ValueError("--credit needs the number of its round: --round NUMBER")
    if round is not None and not credit and revenue is None:
        raise ValueError("--round without --credit: give --credit NAME=NUMBER, or --revenue for a round that credits nobody")
    if file is None and round is None and revenue is None:
        raise ValueError("there is nothing to record: give --round with --credit, or --revenue, or --file")
    with _opened(where, cooperative) as (books, one):
        if file is not None:
            _record_file(books, one, file)
            return
        amount = 0 if revenue is None else _amount("--revenue", revenue, one.currency)
        if round is None:
            receipt, what = books.record_revenue(one.name, amount, key), f"revenue of {one.currency.format(amount)}"
        else:
            number = round_of(round)
            receipt, what = books.record(one.name, number, _credits(credit or []), amount, key), f"round {number}"
    _say(f"{what}: {'was recorded already' if receipt.repeated else 'recorded'}, row {receipt.seq}, hash {receipt.hash}")


@ledger.command(
    "settle",
    epilog="Examples: `proxycoop ledger settle books.db` · `proxycoop ledger settle books.db --revenue 100.00 --key 2026-07`",
)
def settle(where: LedgerArgument, cooperative: CooperativeOption = None, revenue: RevenueOption = None, key: KeyOption = None) -> None:
    """Pay out what came in since the settlement before, by cumulative credit and the cooperative's policy.

    Without new revenue and without a key there is nothing to settle, and the command says so. With a key, a policy's floor is paid from the
    reserve. A repeat with `--revenue` is another settlement. With the same `--key` it is not: the first settlement is then shown again.
    """
    from ..pages.ledger_page import console_table

    with _opened(where, cooperative) as (books, one):
        money = one.currency
        receipt = books.settle(one.name, 0 if revenue is None else _amount("--revenue", revenue, money), key)
    total = sum(max(standing, 0.0) for standing in receipt.standings.values()) or 1.0
    rows = [
        [member, f"{100 * max(standing, 0.0) / total:.1f} %", money.plain(receipt.payouts[member]), money.plain(receipt.paid[member])]
        for member, standing in receipt.standings.items()
    ]
    what = "was made already" if receipt.repeated else "made"
    _say(f"settlement {receipt.number} of {one.name}: {what}, revenue {money.format(receipt.revenue)}")
    show(console_table(("member", "share of standing", f"payout, {money.code}", f"paid so far, {money.code}"), rows))
    _say(f"in reserve: {money.format(receipt.reserve)}; row {receipt.seq}, hash {receipt.hash}")


@ledger.command(
    "verify",
    epilog="Examples: `proxycoop ledger verify books.db --save-head head.json` (keep that elsewhere) · "
    "`proxycoop ledger verify books.db --head head.json` · `proxycoop ledger verify books.db -c clinics --head 103:7d29…` (the whole hash)",
)
def verify(
    where: LedgerArgument,
    cooperative: Annotated[str | None, typer.Option("--cooperative", "-c", help="Only this one. [default: all of the ledger]")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", help="Heads noted before, which must still be there: a file of `--save-head`, an audit bundle, or SEQ:HASH."
        ),
    ] = None,
    save_head: Annotated[Path | None, typer.Option("--save-head", help="JSON file: write the heads here, if nothing is wrong.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Walk the chain, recompute every hash and settlement, and name the first bad row. The exit code is 1 if there is one.

    Whoever can write the database can also write a whole new chain, or cut off its end. Only a head that was noted before, and kept where
    they cannot write, shows that.
    """
    from ...credit.ledger.export import write_heads
    from ...credit.ledger.ledger import Ledger

    with Ledger(where, read_only=True) as books:
        noted_in = {Path(head): "the file of heads that is read"} if head is not None and Path(head).exists() else {}
        outputs = _outputs("verify", overwrite, books, save_head, others=noted_in)
        expected = {} if head is None else _expected(books, head, cooperative)
        with _waiting("verifying"):
            found = books.verify(cooperative, expected)
    _say(", ".join(f"{n:,} {table}" for table, n in found.rows.items()) or "no rows")
    for name, tip in found.heads.items():
        _say(f"head of {name}: {tip.seq}:{tip.hash}")
    if not found.ok:
        for problem in found.problems:
            place = " ".join(str(part) for part in (problem.cooperative, problem.table, problem.seq) if part is not None)
            _say(f"BAD: {place}: {problem.what}")
        raise typer.Exit(1)
    noted = f", with {len(expected)} head{'s' * (len(expected) != 1)} noted before" if expected else ""
    _say(f"OK: {sum(found.rows.values()):,} rows of {len(found.heads)} cooperative{'s' * (len(found.heads) != 1)}{noted}")
    if save_head is not None:
        with outputs:
            _say(f"wrote {write_heads(found.heads, save_head)}: keep it where whoever writes the ledger cannot write")


@ledger.command(
    "statement",
    epilog="Examples: `proxycoop ledger statement books.db Ada` · `proxycoop ledger statement books.db Ada --html ada.html --csv ada.csv`",
)
def statement(
    where: LedgerArgument,
    member: Annotated[str, typer.Argument(help="Name of the member.")],
    cooperative: CooperativeOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="CSV file: write the settlements here, one in a row.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="HTML file: write the statement here, as a page with a picture.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show a member's account: its credit and its payouts, settlement by settlement, and what was decided in rounds."""
    from ..pages.ledger_page import (
        COLUMNS,
        ROUND_COLUMNS,
        cells,
        console_table,
        facts,
        policy_in_words,
        round_cells,
        write_csv,
        write_statement,
    )

    with _opened(where, cooperative, read_only=True) as (books, one):
        outputs = _outputs("statement", overwrite, books, csv_file, html_file)
        account = books.statement(one.name, member)
    _say(f"{account.member}, member of {account.cooperative}; amounts in {account.currency.code}")
    if account.lines:
        show(console_table([title for title, _ in COLUMNS], [cells(line, account.currency) for line in account.lines]))
    else:
        _say("nothing was settled since the member joined")
    if account.rounds:
        rows = [round_cells(one, account.currency) for one in account.rounds]
        show(console_table([title for title, _ in ROUND_COLUMNS[:-1]], [row[:-1] for row in rows]))
        for row in rows:
            if row[-1] != "–":
                _say(f"round {row[0]}: {row[-1]}")
    for name, text in facts(account):
        _say(f"{name}: {text}")
    _say("; ".join(policy_in_words(account.policy, account.currency)))
    with outputs:
        if csv_file is not None:
            _say(f"wrote {write_csv(account, csv_file)}")
        if html_file is not None:
            _say(f"wrote {write_statement(account, html_file)}")


@ledger.command(
    "export",
    epilog="Examples: `proxycoop ledger export books.db --bundle audit.json` (then, anywhere: `python verify_bundle.py audit.json`) · "
    "`proxycoop ledger export books.db --csv tables` · `proxycoop ledger export books.db --parquet tables`",
)
def export(
    where: LedgerArgument,
    cooperative: CooperativeOption = None,
    csv_folder: Annotated[Path | None, typer.Option("--csv", help="Folder for CSV files, one for each table.")] = None,
    parquet_folder: Annotated[Path | None, typer.Option("--parquet", help="Folder for Parquet files, one for each table.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="JSON file that a third party can verify. The script for that is written beside it.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write all rows of a cooperative as CSV, Parquet or an audit bundle. Amounts are in minor units, credit has all digits.

    `verify_bundle.py` needs Python and nothing else: `python verify_bundle.py BUNDLE.json --head SEQ:HASH`, with a head that was kept
    elsewhere.
    """
    from ...credit.ledger.chain import CHAINED
    from ...credit.ledger.export import SCRIPT, require_parquet, script, write_bundle, write_csv, write_parquet
    from ..outputs import Outputs

    if csv_folder is None and parquet_folder is None and bundle is None:
        raise ValueError("there is nothing to write: give --csv FOLDER, --parquet FOLDER or --bundle FILE")
    if parquet_folder is not None:
        require_parquet()
    with _opened(where, cooperative, read_only=True) as (books, one):
        outputs = Outputs("ledger export", overwrite=overwrite, inputs=_own_files(books))
        for folder, end in ((csv_folder, "csv"), (parquet_folder, "parquet")):
            if folder is not None:
                outputs.folder(folder, [f"{table}.{end}" for table in CHAINED])
        if bundle is not None and bundle.name != SCRIPT:  # else writing the bundle says what is wrong
            outputs.file(bundle)
            outputs.file(bundle.with_name(SCRIPT), script())
        with outputs.prepare():
            for folder, write in ((csv_folder, write_csv), (parquet_folder, write_parquet)):
                if folder is not None:
                    with _bar("rows") as move:
                        paths = write(books, one.name, folder, move)
                    _say(f"wrote {len(paths)} files to {folder}")
            if bundle is not None:
                with _bar("rows") as move:
                    write_bundle(books, one.name, bundle, move)
                _say(f"wrote {bundle}; verify it with python {bundle.with_name(SCRIPT)} {bundle}")


def policy_of(path: Path | None, overrides: list[str] | None) -> SettlementPolicy:
    """A policy from a YAML file and overrides of the command line.

    Raises:
        ValueError: If the file cannot be read, a setting is unknown (the message lists the known ones) or not allowed.
    """
    from pydantic import ValidationError

    from ...credit.money.settlement import SettlementPolicy
    from ...registry import unknown_name
    from ...settings import problems
    from ...strict_yaml import Document, read_file

    read = Document({}) if path is None else read_file(path, "policy file")
    if not isinstance(read.value, dict):
        came = "nothing" if read.value is None else f"a {type(read.value).__name__}"
        raise ValueError(f"policy file {str(path)!r} must hold a mapping, such as decay: 0.9, not {came}")
    chosen = assigned("--set", overrides)
    places = {key: f"{path}:{line}" for (key, *inner), line in read.lines.items() if not inner}
    places |= origins_of("--set", overrides)
    settings = {**read.value, **chosen}
    for name in settings:
        if name not in SettlementPolicy.model_fields:
            unknown = unknown_name("setting of a policy", name, sorted(SettlementPolicy.model_fields))
            raise ValueError(f"{places[str(name)]}: {unknown}")
    try:
        return SettlementPolicy.model_validate(settings)
    except ValidationError as error:
        problem = problems(error)[0]
        at = places.get(problem.path[0], "policy") if problem.path else f"policy {path}" if path is not None else "policy"
        raise ValueError(f"{at}: {problem}") from None


@contextmanager
def _opened(where: str, cooperative: str | None, read_only: bool = False) -> Iterator[tuple[Ledger, Cooperative]]:
    """A ledger, and the cooperative to work on."""
    from ...credit.ledger.ledger import Ledger

    with Ledger(where, read_only=read_only) as books:
        if cooperative is not None:
            yield books, books.cooperative(cooperative)
            return
        known = books.cooperatives()
        if len(known) != 1:
            raise ValueError(_which(books, [one.name for one in known]))
        yield books, books.cooperative(known[0].name)


def _outputs(command: str, overwrite: bool, books: Ledger, *files: Path | None, others: Mapping[Path, str] | None = None) -> Outputs:
    """Claim the files of a command before its work begins, apart from the ledger."""
    return outputs_of(f"ledger {command}", overwrite, *files, others=_own_files(books) | dict(others or {}))


def _own_files(books: Ledger) -> dict[Path, str]:
    """The files of the ledger, as inputs."""
    return dict.fromkeys(ledger_files(books.url), "the ledger itself")


def _which(books: Ledger, known: list[str]) -> str:
    if not known:
        return f"ledger {books.name} holds no cooperative yet: proxycoop ledger init LEDGER --cooperative NAME creates one"
    return f"ledger {books.name} holds {len(known)} cooperatives: name one with --cooperative: {', '.join(known)}"


def _say(text: str) -> None:
    """Write one line on standard output, whatever the names in it hold."""
    say(f"{one_line(text)}\n")


def _amount(option: str, text: str, currency: Currency) -> int:
    try:
        return currency.minor(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _credits(assignments: list[str]) -> Mapping[str, float]:
    """``NAME=NUMBER`` pairs; a name may hold an equals sign."""
    from ...credit.ledger.names import shown
    from .credit_file import credit_of

    credit: dict[str, float] = {}
    for assignment in assignments:
        name, equals, number = assignment.rpartition("=")
        if not equals or not name:
            raise ValueError(f"--credit {shown(assignment)}: write NAME=NUMBER, such as Ada=0.3")
        if name in credit:
            raise ValueError(f"--credit {shown(assignment)}: {shown(name)} has a credit already")
        credit[name] = credit_of(number)
    return credit


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"file of members {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _record_file(books: Ledger, one: Cooperative, path: Path) -> None:
    from .credit_file import read_rounds

    rounds = read_rounds(path, one)
    repeated = 0
    with _bar("rounds") as move:
        for done, each in enumerate(rounds):
            try:
                repeated += books.record(one.name, each.number, each.credit, each.revenue or 0).repeated
            except ValueError as error:
                raise ValueError(f"{str(path)!r}, line {each.line}: {error} ({done} rounds before it are recorded)") from error
            move(done + 1, len(rounds))
    _say(f"{len(rounds) - repeated} rounds recorded, {repeated} were there already")


def _expected(books: Ledger, given: str, cooperative: str | None) -> dict[str, Head]:
    """Heads that must still be there, from a file or from SEQ:HASH."""
    from ...credit.ledger.export import head_of, read_heads

    if given.partition(":")[0].isdecimal():
        names = [one.name for one in books.cooperatives()] if cooperative is None else [books.cooperative(cooperative).name]
        if len(names) != 1:
            raise ValueError(_which(books, names))
        return {names[0]: head_of(given)}
    heads = read_heads(given)
    if cooperative is None:
        return heads
    name = books.cooperative(cooperative).name
    if name not in heads:
        raise ValueError(f"{given!r} has no head of {name!r}: it has those of {', '.join(map(repr, heads))}")
    return {name: heads[name]}


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, int], object]]:
    """A progress bar on a terminal, and the function that updates it."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", unit_scale=True, dynamic_ncols=True, delay=1, disable=None) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Show on a terminal that work goes on."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
