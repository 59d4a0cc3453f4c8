"""The final model as devices, SageMaker and MLflow take it."""
