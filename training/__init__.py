"""Train, evaluate, compare and report.

Nothing is imported here, because the RL and plotting libraries behind these modules are slow to load. Import the modules themselves:

* ``train``: train proxies under a credit rule, with any library;
* ``evaluate``: evaluate agents under a credit rule;
* ``compare``: train and evaluate every scenario, rule and seed, in parallel processes;
* ``sweep``: a comparison at every point of a grid of settings;
* ``grid``: which settings a sweep varies, and over which values;
* ``intervals``: means and their intervals, also over two kinds of repetition that are crossed;
* ``measures``: the tables of results, and what every measure means, with its unit;
* ``settings``: settings of training runs;
* ``run``: what a library's adapter gets, and what it returns;
* ``blocks``: who blocks whom, counted over episodes;
* ``outputs``: what commands may write, so that nothing of yours is replaced;
* ``own_modules``: how other processes find rules, values, data and agents of your own;
* ``workers``: processes that work for a comparison, and end with it;
* ``analysis``: summaries, audits and explanations;
* ``libraries``: the RL libraries, one adapter per file;
* ``temptations``: what a rule tempts proxies to do;
* ``tuning``: a search over a mechanism's parameters, with proxies that learn inside;
* ``pages``: HTML pages and figures;
* ``commands``: the command line.
"""

if __name__ != "proxycoop.training":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training'")
