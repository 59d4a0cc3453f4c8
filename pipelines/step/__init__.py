"""A federated run as one step of any SageMaker pipeline.

- ``arguments`` turns the step's options into what its callback message carries;
- ``plain`` writes steps as plain JSON, for which no SDK is needed;
- ``federated_step`` and ``register_step`` are the same steps as objects of SageMaker's Python SDK,
  version 2 or 3, whichever ``sdk`` finds;
- ``pipeline`` builds our own pipeline from them; ``python -m pipelines.step``, part of ``make
  templates``, writes its definition into the package.
"""
