"""The command line.

* ``cli``: the command ``proxycoop``, and its options before all commands;
* ``scenario_commands``: ``proxycoop scenarios``;
* ``drafts``: ``proxycoop scenarios new``;
* ``listings``: ``proxycoop rules``, ``libraries`` and ``agents``; the table of credit rules, and the manual of one;
* ``run_commands``: ``proxycoop play``, ``train``, ``evaluate`` and ``audit``;
* ``comparison_commands``: ``proxycoop compare`` and ``report``;
* ``sweep_command``: ``proxycoop sweep``;
* ``options``: options that several commands share;
* ``profile_commands``: ``proxycoop profiles``;
* ``profiles``: what ``proxycoop profiles`` does;
* ``ledger_commands``: ``proxycoop ledger``;
* ``credit_file``: rounds from a CSV file, for the ledger;
* ``explain_command``: ``proxycoop explain``;
* ``temptation_commands``: ``proxycoop redteam`` and ``schelling``;
* ``tune_command``: ``proxycoop tune``.
"""
