"""The devices of the fault suite: their processes, and the programs of two that misbehave.

``processes`` is for :mod:`pipelines.chaos.world`; ``hostile`` and ``skewed`` are run by it as
programs; ``behaviours`` is also read by the faults and the invariants.
"""
