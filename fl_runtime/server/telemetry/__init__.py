"""Rounds in MLflow and in log lines that metrics are made of."""
