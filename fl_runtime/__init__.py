"""What runs in the containers: a run's server, its proxies, and what both know of a run.

Layers, each importing only those before it: ``run``, ``cohort``, ``server``. ``proxy`` is the entry
point of a proxy task, on top of ``cohort``. Imports ``edge``, and neither ``registry`` nor
``pipelines``; the Lambda functions and the registry import ``run``.
"""
