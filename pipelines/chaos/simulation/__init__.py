"""Deterministic simulation: a run's server, cohorts, devices, tables, objects and clock in one
process, under a seeded scheduler.

The code is the product's, behind its ports; only what lies beyond the ports is made here. One seed
is one history, which a second run repeats event by event: ``mledgeops chaos --simulate``.
Only the command line imports it, by :mod:`pipelines.chaos.simulation.suite`.
"""
