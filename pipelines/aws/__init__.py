"""The AWS deployment: templates and what synthesises, packages and deploys them.

- ``app`` and ``stacks``, which need the CDK, write the templates;
- ``policies``, ``state_machine`` and ``metrics`` say what the stacks contain;
- ``deploy`` brings the templates to CloudFormation by change sets, on the local cloud too;
- ``pins``, ``wheels`` and ``lambda_bundle`` package the code.
"""
