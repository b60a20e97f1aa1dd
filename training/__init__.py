"""Train, evaluate, compare, report."""
