"""Runs an app's ClientApp: the worker process, app bundles, and every touch of Flower's private
parts on a device.
"""
