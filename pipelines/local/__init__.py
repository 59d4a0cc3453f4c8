"""The local cloud: AWS on one machine, for notebooks, tests and the fault suite.

A daemon owns ministack (most of AWS), moto (SageMaker), an agent that runs ECS tasks as processes,
and the evaluation of log metric filters. ``GAPS.md`` lists what differs from AWS.

Import from here: ``cloud`` (start, attach, reach), ``home`` (paths), ``fleet`` (local devices),
``federate`` (one run with its devices). The rest belongs to the daemon. Nothing outside this
folder is imported here except ``pipelines.{aws,deployment,devices,run}``.
"""
