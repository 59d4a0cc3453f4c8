"""The rounds of a run.

``round_loop`` replaces Flower's ``Strategy.start`` and drives the steps of a round; each step is a
module. Import ``RoundLoop`` and what it is made from: ``StoppingCriteria``, ``ChampionComparison``
and ``CheckpointStore``.
"""
