"""The command line.

* ``cli``: the command ``proxycoop``: scenarios, rules, agents, play, train, evaluate, audit, compare, report;
* ``options``: options that several commands share;
* ``rules``: ``proxycoop rules``: the table of credit rules, and the manual of one;
* ``profile_commands``: ``proxycoop profiles``;
* ``profiles``: what ``proxycoop profiles`` does;
* ``ledger_commands``: ``proxycoop ledger``;
* ``credit_file``: rounds from a CSV file, for the ledger;
* ``explain_command``: ``proxycoop explain``;
* ``library_commands``: ``proxycoop libraries``.
"""
