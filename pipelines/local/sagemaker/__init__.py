"""SageMaker on one machine: moto's model registry, and an engine that runs pipelines.

``service`` is what the daemon starts; ``engine`` can be used alone, with clients of one's own.
"""
