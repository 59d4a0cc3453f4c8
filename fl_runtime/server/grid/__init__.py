"""Flower's ``Grid`` over a fleet of AWS IoT devices.

``iot_grid`` is what strategies and apps see; ``phase_policy`` is what the round loop decides about
a phase; ``phases`` carries a phase out. Import ``IoTGrid``, ``PhasePolicy`` and ``PhaseExecutor``
from these modules; the others are their parts.
"""
