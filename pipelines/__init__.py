"""The SageMaker pipeline, the state machine, the Lambda handlers, the CLI, and the two clouds they
run on.
"""
