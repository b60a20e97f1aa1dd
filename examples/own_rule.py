"""A credit rule of your own in ten lines: the mean of an equal split of the gain and the leave-one-out value."""

from proxycoop import agents, credit
from proxycoop.envs import Engine


@credit.RULES.register("half_solidary")
class HalfSolidary(credit.GameRule):
    r""":math:`c_i = \tfrac12 v(N) / n + \tfrac12 (v(N) - v(N \setminus i))`."""

    source, evaluations, symmetric = "this file", "n + 1", True

    def cost(self, n_players):
        return n_players + 1

    def divide(self, game):
        return (credit.make("equal").divide(game) + credit.make("loo").divide(game)) / 2


print(credit.check_rule("half_solidary"))  # does it keep what it promises? On the command line: proxycoop rules half_solidary --check
engine = Engine("digits", "half_solidary", num_envs=64)
for name in ("none", "honest", "all"):
    metrics = agents.play(engine, agents.make(name), seeds=range(64))
    print(f"{name}: a proxy earns {float(metrics['return'].mean()):z.2f}, the cooperative {float(metrics['welfare'].mean()):z.2f}")
