"""Where a run's cohorts are served: in the server's own process, or by proxies over gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fl_runtime.cohort.hub import ProxyHub
from fl_runtime.cohort.mtls import delete_identity, make_identities, publish_identity, secret_name
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunTable
from fl_runtime.server.grid.fan_out import CohortBackend


@dataclass(frozen=True, kw_only=True)
class CohortHost:
    """Opens the backend that a run's grid sends its phases to."""

    runner: CohortRunner
    """Serves cohorts in this process."""
    runs: RunTable
    secrets: Any
    """Secrets Manager client: hands the proxies' certificates over."""
    address: Callable[[], str]
    """The IP address at which proxies reach this process."""

    @contextlib.contextmanager
    def serve(
        self, spec: RunSpec, cohorts: Sequence[Cohort], epoch: int
    ) -> Iterator[CohortBackend]:
        """The run's backend. ``epoch`` counts the servers of the run, this one included."""
        if spec.devices_per_proxy == 0:
            yield self.runner
            return
        with self._proxies(spec.run, cohorts, epoch) as hub:
            yield hub

    @contextlib.contextmanager
    def _proxies(self, run: str, cohorts: Sequence[Cohort], epoch: int) -> Iterator[ProxyHub]:
        """Publish address and certificates, and serve the proxies that attach."""
        address = self.address()
        # A CA for this server alone: no certificate outlives it.
        server, proxy = make_identities(address)
        publish_identity(self.secrets, secret_name(run, epoch), proxy)
        if epoch > 1:
            # A server that was killed could not delete its own.
            delete_identity(self.secrets, secret_name(run, epoch - 1))
        names = [cohort.cohort for cohort in cohorts]
        hub = ProxyHub(names, server, host=address, clock=time.monotonic)
        # Last, since proxies poll for it: now they find the certificates.
        # Not the address of a server that was replaced while it started: its proxies would wait
        # for it, and its successor for them.
        self.runs.update(run, epoch=epoch, server=f"{address}:{hub.port}")
        over = False
        try:
            yield hub
            over = True
        except RunFailed as error:
            # When another server goes on with the run, its proxies must stay.
            over = error.code != "fenced" and not self._replaced(run, epoch)
            raise
        finally:
            hub.close(goodbye=over)
            delete_identity(self.secrets, secret_name(run, epoch))

    def _replaced(self, run: str, epoch: int) -> bool:
        """Whether another server has taken the run over since."""
        state = self.runs.get(run)
        return state is not None and state.epoch != epoch
