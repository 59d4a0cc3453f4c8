"""SageMaker on one machine: moto's registry, and pipelines that run."""
