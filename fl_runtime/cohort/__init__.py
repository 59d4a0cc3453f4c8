"""A proxy's work: one cohort's part of a phase, and the wire to the server.

A cohort here is a proxy's share of the fleet, not the clients sampled for a round
(:mod:`fl_runtime.run.cohorts`). Imports ``fl_runtime.run``, ``fl_runtime.aggregation`` and
``edge``, and neither torch nor flwr. The server imports ``runner`` (cohorts in its own process),
``hub``, ``mtls``, ``fold`` and ``updates``; the proxy imports ``runner``, ``attach`` and
``mtls``.
"""
