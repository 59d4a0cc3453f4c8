"""The Lambda function that links. Others call it for what only its role may do: signing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from registry.errors import RegistryError
from registry.provenance import ProvenanceMismatch, ProvenanceMissing

_REFUSALS = {error.code: error for error in (ProvenanceMismatch, ProvenanceMissing)}
"""What calling the function again does not mend, by the code in its answer."""


@dataclass(frozen=True)
class LinkFunction:
    """Calls the function and waits for its answer.

    Its methods raise RegistryError when it fails, with its reason.
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

        Raises ProvenanceMissing or ProvenanceMismatch for one that its run's record does not name.
        """
        said = self._call({"model_package_arn": model_package_arn, "by_event": True})
        if said.get("refused"):
            raise _REFUSALS[said["refused"]](said["reason"])
        return str(said["model_version"])

    def _call(self, request: dict[str, Any]) -> Any:
        answer = self.client.invoke(FunctionName=self.name, Payload=json.dumps(request))
        said = json.loads(answer["Payload"].read() or b"null")
        if answer.get("FunctionError"):
            reason = said.get("errorMessage") if isinstance(said, dict) else said
            raise RegistryError(str(reason))
        return said
