"""A run's history: in MLflow (``tracking``), and in log lines that metrics are made of
(``log_events``, which imports neither flwr nor mlflow).
"""
