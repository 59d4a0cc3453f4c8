"""Makes both registries and the fleets agree again."""
