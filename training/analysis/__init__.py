"""What was measured: summaries, audits and explanations of runs."""
