"""Runs an app's ClientApp: app bundles, the training subprocess, and Flower's private interfaces.

The agent imports ``worker_process`` and ``app_bundle``, which are light; the cloud imports
``app_bundle``, ``app_modules`` and ``flower_compat`` too.
"""
