"""Staged rollouts: canary, waves, automatic rollback."""
