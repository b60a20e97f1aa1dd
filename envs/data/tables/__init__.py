"""One's own tables: files that a scenario names, read without a line of Python.

* ``settings``: what a scenario says of its file;
* ``digests``: opening files, and noticing that one has changed;
* ``columns``: a column as it was read: numbers or words;
* ``delimited``: CSV and its kin;
* ``columnar``: Parquet (extra ``parquet``);
* ``arrays``: NumPy's archives (npz), and the IDX files of MNIST and its successors;
* ``encoding``: from columns to features, labels and attributes.
"""

if __name__ != "proxycoop.envs.data.tables":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs.data.tables'")

from .columns import Column
from .digests import digest_of, require_unchanged
from .encoding import Table
from .settings import SOURCES, TableFile
from .sources import read, scan

__all__ = ["SOURCES", "Column", "Table", "TableFile", "digest_of", "read", "require_unchanged", "scan"]
