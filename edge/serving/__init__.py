"""The model in use on a device: its installation, predictions and their statistics.

Programs on the device import :class:`edge.serving.model.Model`; the agent imports the rest.
"""
