"""One run as a pipeline: options, the SageMaker pipeline, starting, following, resuming it."""
