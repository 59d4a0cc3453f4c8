"""MLflow's registry and SageMaker's as one: link, approve, promote."""
