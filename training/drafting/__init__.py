"""Draft a scenario on a table of one's own: ``proxycoop scenarios new data.csv --label default``.

* ``roles``: what each column is taken for;
* ``leaks``: which column alone predicts the label;
* ``people``: groups, and values on them;
* ``sizes``: rows of splits and lots;
* ``table``: reading the file, and what its columns mean;
* ``plan``: the cooperative;
* ``draft``: all of it, calibrated;
* ``sheet``: YAML with a comment on every key.
"""

from .draft import Draft, draft_scenario
from .leaks import Alone
from .people import People
from .roles import Guess, Role
from .sheet import Sheet
from .table import Opened, Wishes

if __name__ != "proxycoop.training.drafting":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.drafting'")

__all__ = ["Alone", "Draft", "Guess", "Opened", "People", "Role", "Sheet", "Wishes", "draft_scenario"]
