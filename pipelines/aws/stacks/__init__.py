"""The CDK stacks, base, data and sagemaker, and their constructs.

Only ``pipelines.aws.app`` imports them: the CDK is installed where templates are synthesised.
"""
