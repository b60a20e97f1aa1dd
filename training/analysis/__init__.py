"""Summaries, audits and explanations of what was played.

* ``summary``: tables of a comparison, with intervals;
* ``ranking``: which of several estimates is the largest, and whether that is certain;
* ``latex``: the tables of a comparison for papers;
* ``audit``: play episodes and record every objection of the screening;
* ``objections``: the objections of an audit, as records, totals and sentences;
* ``explain``: what each proxy's policy is worth, and which features it uses;
* ``coalition_play``: play episodes in which only some proxies take part, or only some features are seen;
* ``masked_features``: what a policy would do if it saw fewer features;
* ``curves``: curves of a sweep, and tables of them;
* ``interaction``: how much members interact: the parts of a round's game by order;
* ``diagnosis``: whether a scenario's start, tolerances and learning rates make sense;
* ``calibrate``: measure a scenario, and propose others;
* ``stakes``: what contributing should cost, so that a scenario is a dilemma;
* ``attribution``: Shapley values of games that are played in episodes.
"""
