"""The server task of a run: hosts the app's ServerApp and runs its rounds on the fleet.

``main`` is the entry point (``python -m fl_runtime.server``) and does the wiring; ``server`` is one
run's server. Folders: ``apps`` (loading and running ServerApps), ``grid`` (Flower's Grid over
cohorts), ``aggregation`` (strategies in blocks), ``rounds`` (the round loop), ``model`` (the final
model), ``telemetry`` (MLflow and log lines). Nothing outside this package imports it, except for
``telemetry.log_events``, whose metric names the alarms and dashboards use. Nothing is imported
here: that module stays light.
"""
