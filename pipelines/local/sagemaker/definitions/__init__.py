"""A pipeline's definition: its values and references, its conditions, its graph, and what is wrong
with it.

https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/
"""
