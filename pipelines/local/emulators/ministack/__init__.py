"""The process that emulates AWS: ministack, with functions of it wrapped where a run needs more.

Pinned to 1.5.33; ``tests/integration/test_local_cloud.py`` tests each patch.

- ``broker``: a message is compared with the subscriptions that may match it, not with all;
- ``expressions``: a condition of DynamoDB is parsed once, not for each row;
- ``function_workers``: Lambda functions are forked from a process with the libraries loaded;
- ``iam``: who asks for what is recorded; conditions that loopback cannot meet are met;
- ``step_functions``: task tokens' heartbeats are enforced, failed ECS tasks fail their state;
- ``provisioning``: fleet provisioning takes certificate signing requests;
- ``thing_attributes``: policies of devices may name attributes of their thing.

Nothing is imported from here: ``python -m pipelines.local.emulators.ministack`` is the process.
"""
