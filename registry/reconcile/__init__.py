"""Reconciliation: makes both registries and the fleets agree again.

``aws`` reads a snapshot, ``plan`` derives repairs from it, ``repair`` executes them; ``runs`` tells
MLflow of runs that ended unseen.
"""
