"""When a run stops before its last round, and whose round's model it keeps."""

from __future__ import annotations

from fl_runtime.run.cost import Topology, round_cost
from fl_runtime.run.records import RoundRecord, decisive_metrics
from fl_runtime.run.scoring import score_of
from fl_runtime.run.spec import RunSpec
from fl_runtime.server.model.objective import Objective, ObjectiveValue


class StoppingCriteria:
    """The run's target and budgets, held against its finished rounds.

    A pure function of round records, so a resumed run stops where it would have stopped.
    """

    def __init__(self, spec: RunSpec, topology: Topology, objective: Objective) -> None:
        self._spec = spec
        self._topology = topology
        self._objective = objective
        self._seconds = self._cost = 0.0
        self._last = (0.0, 0.0)
        self._best_score: float | None = None
        self.best: RoundRecord | None = None
        """The round with the best score so far."""
        self.reason = ""
        """Why no further round is to run; empty while the run goes on."""
        self.keep_best = False
        """Whether the run keeps the best round's model instead of the last one's.

        So after a budget ran out, which may happen after a bad round.
        """

    def begin_start(self) -> None:
        """The app calls ``Strategy.start``: the best round is one of this call, whose model may be
        another than the last call's. Target and budgets are the whole run's.
        """
        self._best_score = self.best = None

    def add(self, record: RoundRecord) -> None:
        """Add a finished round, also one of an earlier server."""
        cost = round_cost(self._topology, record.seconds.total, len(record.devices))
        self._last = (record.seconds.total, cost)
        self._seconds, self._cost = self._seconds + record.seconds.total, self._cost + cost
        value = self._objective.value_if_reported(decisive_metrics(record, self._objective.metric))
        if value is not None and (self._best_score is None or value.score > self._best_score):
            self._best_score, self.best = value.score, record
        if value is not None and self._reached(value):
            self.keep_best = False
            self.reason = f"the target of {self._spec.target:g} was reached in round {record.round}"
        elif exhausted := self._exhausted():
            self.keep_best = True
            self.reason = f"{exhausted} after round {record.round}"

    def _reached(self, value: ObjectiveValue) -> bool:
        target = self._spec.target
        return target is not None and value.score >= score_of(target, value.goal)

    def _exhausted(self) -> str:
        """The budget that another round as long as the last one would exceed."""
        spec = self._spec
        if spec.max_seconds and self._seconds + self._last[0] > spec.max_seconds:
            used = f"{self._seconds:.1f} s used"
            return f"the budget of {spec.max_seconds:g} s allows no further round ({used})"
        if spec.max_cost and self._cost + self._last[1] > spec.max_cost:
            used = f"USD {self._cost:.4f} used"
            return f"the budget of USD {spec.max_cost:g} allows no further round ({used})"
        return ""
