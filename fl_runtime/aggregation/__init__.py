"""Arithmetic over many updates in little memory: means, norms, medians, distances.

Updates lie in files and are read block by block (:mod:`fl_runtime.aggregation.mapped`), so the
memory that a result takes does not grow with the number of devices. Imports ``fl_runtime.run`` and
``edge``, and neither torch nor flwr.
"""
