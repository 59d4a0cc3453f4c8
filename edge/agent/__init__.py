"""The agent process of one device, and many agents in one process (fleet).

``main`` is the entry point, ``agent`` puts the parts together, and each further module is one part:
commands, heartbeats, certificate rotation, models, IoT jobs and the reply spool. Only entry points
and tests import from here.
"""
