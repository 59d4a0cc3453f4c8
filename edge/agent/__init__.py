"""The agent process of one device, and many agents in one process (fleet).

``main`` is the entry point, ``agent`` puts the parts together, and each further module is one part:
commands, heartbeats, certificate rotation, models, IoT jobs and the reply spool. Nothing in edge
imports from here; outside, only what plays a device does: the local cloud and the fault suite.
"""
