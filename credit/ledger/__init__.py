"""The ledger: append-only, hash-chained, in SQLite or PostgreSQL.

* ``ledger``: the ledger: recording rounds, settling, paying;
* ``statement``: a member's account, settlement by settlement;
* ``verification``: recomputing every hash and every settlement of a ledger;
* ``export``: exports as CSV, Parquet or a JSON audit bundle;
* ``verify_bundle``: a program that verifies an audit bundle without this package;
* ``receipts``: what the ledger returns for an entry;
* ``chain``: the hash chain;
* ``rows``: reading a ledger's rows, and the state of its accounts;
* ``schema``: the tables, and the migrations between versions;
* ``connection``: connections to SQLite and PostgreSQL;
* ``names``: which names are allowed, and how errors show them.
"""

from .chain import Head
from .export import head_of, read_heads, write_bundle, write_csv, write_heads, write_parquet
from .ledger import Cooperative, Ledger
from .receipts import Receipt, SettlementReceipt
from .statement import Statement, StatementLine, StatementRound
from .verification import Problem

__all__ = [
    "Cooperative",
    "Head",
    "Ledger",
    "Problem",
    "Receipt",
    "SettlementReceipt",
    "Statement",
    "StatementLine",
    "StatementRound",
    "head_of",
    "read_heads",
    "write_bundle",
    "write_csv",
    "write_heads",
    "write_parquet",
]
