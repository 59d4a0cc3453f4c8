"""One run as a SageMaker pipeline.

- ``option_table`` lists the run options; flags, parameters and documentation derive from it;
- ``plan`` resolves an app and its options;
- ``definition`` is the pipeline of an app, and ``publication`` brings it to a deployment;
- ``runner`` starts, follows and reports (by ``executions`` and ``report``), ``resume`` continues;
- ``request`` and ``names`` are what the Lambda functions share with the pipeline.

Nothing here imports handlers, the local cloud or commands.
"""
