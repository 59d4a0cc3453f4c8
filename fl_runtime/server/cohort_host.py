"""Where a run's cohorts are served: in the server's own process, or by proxies over gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fl_runtime.cohort.hub import ProxyHub
from fl_runtime.cohort.mtls import (
    Identity,
    delete_identity,
    make_identities,
    publish_identity,
    secret_name,
)
from fl_runtime.cohort.runner import CohortRunner
from fl_runtime.run.cohorts import Cohort
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import RunSpec
from fl_runtime.run.state import RunTable
from fl_runtime.server.grid.fan_out import CohortBackend

PARALLEL_SECRETS = 8
"""Secrets Manager takes about 50 ms for a secret, and there is one for each cohort."""


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
    prefix: str
    """Begins the names of the certificates' secrets."""

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
        names = [cohort.cohort for cohort in cohorts]
        # A CA for this server alone: no certificate outlives it.
        server, proxies = make_identities(address, names)
        self._publish(run, epoch, proxies)
        if epoch > 1:
            # A server that was killed could not delete its own.
            self._delete(run, epoch - 1, names)
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
            self._delete(run, epoch, names)

    def _publish(self, run: str, epoch: int, proxies: dict[str, Identity]) -> None:
        def publish(cohort: str) -> None:
            name = secret_name(self.prefix, run, epoch, cohort)
            publish_identity(self.secrets, name, proxies[cohort])

        with ThreadPoolExecutor(PARALLEL_SECRETS) as pool:
            list(pool.map(publish, proxies))

    def _delete(self, run: str, epoch: int, cohorts: Sequence[str]) -> None:
        def delete(cohort: str) -> None:
            delete_identity(self.secrets, secret_name(self.prefix, run, epoch, cohort))

        with ThreadPoolExecutor(PARALLEL_SECRETS) as pool:
            list(pool.map(delete, cohorts))

    def _replaced(self, run: str, epoch: int) -> bool:
        """Whether another server has taken the run over since."""
        state = self.runs.get(run)
        return state is not None and state.epoch != epoch
