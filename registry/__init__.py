"""MLflow's and SageMaker's registries as one: link, approve, promote, roll out, reconcile, trace.

``wiring`` puts everything together from AWS clients; entry points use :class:`wiring.Registry`, and
``model_version``, ``errors`` and the ``model`` modules for data. Imports go one way:

errors < model_version < sagemaker_registry, mlflow_registry < audit < policy < evidence < rollout,
linking, approval, promotion < trace, reconcile < wiring
"""
