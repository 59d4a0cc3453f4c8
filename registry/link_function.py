"""The Lambda function that links. Others call it for what only its role may do: signing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from registry.errors import RegistryError
from registry.provenance import ProvenanceMismatch, ProvenanceMissing

_REFUSALS = {error.__name__: error for error in (ProvenanceMismatch, ProvenanceMissing)}
"""The function's errors that calling it again does not mend."""


@dataclass(frozen=True)
class LinkFunction:
    """Calls the function and waits for its answer.

    Its methods raise ProvenanceMissing or ProvenanceMismatch when it refuses, and RegistryError for
    any other failure, with the function's reason.
    """

    client: Any
    """boto3's Lambda client."""
    name: str

    def sign(self, model_package_arn: str) -> None:
        """Have a linked version's record signed (idempotent)."""
        self._call({"model_package_arn": model_package_arn, "sign_only": True})

    def sign_run(self, run: str) -> None:
        """Have the record of a run that has ended signed (idempotent)."""
        self._call({"run": run})

    def link(self, model_package_arn: str) -> str:
        """Link a package that a pipeline of any name registered; returns its version's number.

        Empty: it is linked once its approval, which came too early, is taken back.
        """
        found: str = self._call({"model_package_arn": model_package_arn, "by_event": True})[
            "model_version"
        ]
        return found

    def _call(self, request: dict[str, Any]) -> Any:
        answer = self.client.invoke(FunctionName=self.name, Payload=json.dumps(request))
        said = json.loads(answer["Payload"].read() or b"null")
        if answer.get("FunctionError"):
            known = said if isinstance(said, dict) else {}
            error = _REFUSALS.get(str(known.get("errorType", "")), RegistryError)
            raise error(str(known.get("errorMessage", said)))
        return said
