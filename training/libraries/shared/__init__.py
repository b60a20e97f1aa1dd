"""Pieces that adapters of several libraries, or our own trainer, are made of.

* ``normalise``: statistics of observations, for libraries that do not normalise by themselves;
* ``sb3_normalise``: running normalisation for Stable-Baselines3;
* ``closed_form``: the network's gradient in closed form, for ``ippo``;
* ``own_rounds``: returns over the rounds in which an agent is present;
* ``resumption``: parts of checkpoints that several libraries share.
"""
