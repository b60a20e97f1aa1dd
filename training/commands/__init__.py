"""The command line.

* ``cli``: the command ``proxycoop``, and its options before all commands;
* ``scenario_commands``: ``proxycoop scenarios``;
* ``listing_commands``: ``proxycoop rules``, ``libraries`` and ``agents``;
* ``run_commands``: ``proxycoop play``, ``train``, ``evaluate`` and ``audit``;
* ``comparison_commands``: ``proxycoop compare`` and ``report``;
* ``sweep_command``: ``proxycoop sweep``;
* ``options``: options that several commands share;
* ``rules``: ``proxycoop rules``: the table of credit rules, and the manual of one;
* ``profile_commands``: ``proxycoop profiles``;
* ``profiles``: what ``proxycoop profiles`` does;
* ``ledger_commands``: ``proxycoop ledger``;
* ``credit_file``: rounds from a CSV file, for the ledger;
* ``explain_command``: ``proxycoop explain``.
"""
