"""One run as a SageMaker pipeline.

``option_table`` lists the options, and all else derives from it. ``plan`` resolves an app and options,
``pipeline`` builds the pipeline with the SDK, ``publication`` brings both to a deployment, ``runner``
starts, follows and reports (``executions``, ``report``), ``resume`` continues a run. ``request`` and
``names`` are what the Lambda functions share with the pipeline. Nothing here imports handlers, local
cloud or commands.
"""
