"""Loading, checking and running the app's ServerApp.

``app_runner.run_app`` runs an app on a grid, whichever of Flower's interfaces it uses.
``check_app`` is a program of its own, run before a pipeline starts.
"""
