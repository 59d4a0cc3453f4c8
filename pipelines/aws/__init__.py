"""The AWS deployment: templates and what synthesises, packages and deploys them.

``app`` (with ``stacks``, which need the CDK) writes the templates; ``deploy`` brings them to
CloudFormation by change sets, also on the local cloud. ``policies``, ``state_machine`` and
``metrics`` say what the stacks contain; ``pins``, ``wheels`` and ``lambda_bundle`` package the code.
"""
