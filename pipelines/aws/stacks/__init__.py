"""The CDK stacks: base, data, sagemaker, and what they consist of."""
