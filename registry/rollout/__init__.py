"""Staged rollout of a model to a fleet: canary, waves, automatic rollback.

``service`` begins rollouts and ``conductor`` advances them; ``model`` and ``ports`` hold the data
and the interfaces, ``aws`` implements them. :mod:`registry.wiring` puts all of it together.
"""
