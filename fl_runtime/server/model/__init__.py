"""The final model: what it is judged by, and its files for devices, SageMaker and MLflow.

``mlflow_model`` is code that MLflow stores beside the weights: nothing here imports it.
"""
