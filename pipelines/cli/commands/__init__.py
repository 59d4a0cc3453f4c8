"""The commands. ``add_parser(commands)`` of a module declares its commands.

- ``runs/``: running apps, past runs, schedules;
- ``registry/``: versions, decisions, rollouts, audit, reconciliation;
- ``operate/``: clouds, deployment, devices, components;
- ``measure/``: benchmarks and the fault suite.

A command makes its AWS clients by :mod:`pipelines.desk.wiring` and hands them on.
"""
