"""Flower's ``Grid`` over a fleet of AWS IoT devices.

``iot_grid`` is what strategies and apps see, ``phase_policy`` is what the round loop decides about
a phase, and ``phases`` carries a phase out. Import ``IoTGrid``, ``PhasePolicy`` and
``PhaseExecutor`` from these modules; the others are their parts. ``flower_compat`` has the private
parts of Flower for the whole server, here because everything else in the server stands on this
folder.
"""
