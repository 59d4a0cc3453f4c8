"""The AWS deployment: the CDK app, its synthesised templates, the container images, and what
deploys them.
"""
