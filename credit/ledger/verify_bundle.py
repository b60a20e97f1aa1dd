"""Verify an audit bundle of a proxycoop ledger: ``python verify_bundle.py BUNDLE.json [--head SEQ:HASH]``. Needs Python 3.9 or later only.
Hashes are recomputed: SHA-256 of the JSON [hash before, table, fields], keys sorted, no spaces, ASCII, from 64 zeros on. No row may be
missing or moved. A settlement must pay each member once, and split the revenue to the unit. Not checked: whether shares follow from credit,
whose credit it is, and rounds, keys and names that occur twice. With --head, a head noted elsewhere, it finds a chain cut off or rewritten.
"""

import json
import sys
from collections import Counter
from hashlib import sha256
from typing import Any

TABLES = ["cooperatives", "members", "rounds", "decisions", "revenue", "settlements", "credits", "payouts"]
WHOLE = {"amount", "exponent", "n_credits", "n_payouts", "number", "paid", "position", "reserve", "revenue", "seq", "settlement"}


def need(condition: object, problem: str) -> None:
    """Raise an error that says what is wrong, unless the condition holds."""
    if not condition:
        raise ValueError(problem)


def verify(bundle: dict[str, Any], heads: set[str], n: Counter[str]) -> str:
    """Walk the chain, add up in ``n``, and return a line about it; an error is about row ``n["rows"]``."""
    before, head, part, paid = "0" * 64, "", ("", 0), Counter[int]()
    need(bundle["format"] == 1, "its format is not 1: use the script that came with it")
    for n["rows"], entry in enumerate(bundle["entries"], 1):
        table, row = entry["table"], entry["fields"]
        need(entry["seq"] == row["seq"] == n["rows"], "a row before it is missing, doubled or moved")
        before = sha256(json.dumps([before, table, row], sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()
        need(entry["hash"] == before, "this is not its hash: it, or what came before it, was changed")
        heads.discard(head := f"{n['rows']}:{before}")
        need(row["cooperative"] == bundle["cooperative"] and (n["rows"] == 1) == (table == TABLES[0]), "is of another cooperative")
        need(all(type(row[one]) is int and 0 <= row[one] < 2**63 for one in WHOLE & row.keys()), "a number is not from 0 to 2^63 - 1")
        need(part == (table, row.get("settlement", row.get("round"))) if n["left"] else table in TABLES[:6], "does not belong here")
        n.update({"left": -(n["left"] > 0), f"n {table}": 1, table: row.get("amount", row.get("revenue", 0))})  # adds
        need(table not in ("members", "payouts") or row["position"] == n["n members"] - 1 - n["left"], "it is not its member's turn")
        if table == "rounds":
            part, n["left"] = ("credits", row["round"]), row["n_credits"]
        elif table == "settlements":
            part, n["left"], n["reserve"] = ("payouts", row["number"]), row["n_payouts"] or 1, row["reserve"]
            need(n["revenue"] == n["settlements"] and row["number"] == n["n settlements"], "its number or revenue does not follow")
        elif table == "payouts":
            paid[row["position"]] += row["amount"]
            need(row["paid"] == paid[row["position"]], f"its member was paid {paid[row['position']]} so far")
        need(n["left"] or n["payouts"] + n["reserve"] == n["settlements"], "payouts and the reserve's gain are not the revenue")
    need(not n["left"] and head == "{seq}:{hash}".format(**bundle["head"]), "after it rows are missing: this is not the bundle's head")
    need(not heads, "the noted head is none of its rows: it was written anew, or rows after it are missing")
    return f"OK: {n['rows']} rows of {bundle['cooperative']!a}, head {head}"


if __name__ == "__main__":
    words, sums = sys.argv[1:], Counter[str]()
    if len(words) not in (1, 3) or words[1:2] not in ([], ["--head"]):
        sys.exit(__doc__)
    try:
        with open(words[0], encoding="utf-8") as file:
            print(verify(json.load(file), set(words[2:]), sums))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        sys.exit(f"BAD: row {sums['rows']}: {error}")
