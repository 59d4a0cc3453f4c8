"""Commands about versions: models, cards, decisions, rollouts, policy, audit, reconciliation."""
