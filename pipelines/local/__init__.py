"""The local cloud: emulators, Fargate as subprocesses, SageMaker pipelines. See GAPS.md for its
limits.
"""
