"""The clients that starting, following and resuming a run takes. Entry points make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_runtime.run.aws import S3Objects
from fl_runtime.run.state import RunTable


@dataclass(frozen=True, kw_only=True)
class RunClients:
    """What a run's starter and followers work with."""

    objects: S3Objects
    """The deployment's data bucket."""
    runs: RunTable
    sagemaker: Any
    """boto3 client."""
