"""The server task: the app's ServerApp, its rounds, the final model, tracking."""
