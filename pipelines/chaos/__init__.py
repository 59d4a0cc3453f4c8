"""The fault suite: ``mledgeops chaos`` runs pipelines under seeded faults and checks invariants.

- ``suite``: one run for each seed; ``stage``: what a fault sees of the run;
- ``world``: the local cloud, five devices and the links between them;
- ``faults/``: the kinds of faults; ``devices/``: hostile and skewed devices;
- ``invariants``: what must hold after every run;
- ``app/``: the Flower app that is federated, whose result can be computed again.

Only ``pipelines.cli`` imports from here: ``suite``, ``world`` and ``faults.catalogue``.
"""
