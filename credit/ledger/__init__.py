"""The ledger: append-only, hash-chained, in SQLite or PostgreSQL."""

from .chain import Head
from .export import head_of, read_heads, write_bundle, write_csv, write_heads, write_parquet
from .ledger import Cooperative, Ledger
from .receipts import Receipt, SettlementReceipt
from .statement import Statement, StatementLine
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
    "head_of",
    "read_heads",
    "write_bundle",
    "write_csv",
    "write_heads",
    "write_parquet",
]
