"""Commands about runs: run, runs, show, logs, stop, schedule."""
