"""Commands about versions: models, rollouts, reconciliation."""
