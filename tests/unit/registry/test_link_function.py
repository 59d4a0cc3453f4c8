"""What others ask the link function for, and how its refusals arrive."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from registry.errors import RegistryError
from registry.link_function import LinkFunction
from registry.provenance import ProvenanceMismatch, ProvenanceMissing


class Lambda:
    def __init__(self, said: Any, *, failed: bool = False) -> None:
        self.said, self.failed = said, failed
        self.asked: list[Any] = []

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:
        self.asked.append((FunctionName, json.loads(Payload)))
        error = {"FunctionError": "Unhandled"} if self.failed else {}
        return {"Payload": io.BytesIO(json.dumps(self.said).encode()), **error}


def test_each_request_is_one_call() -> None:
    client = Lambda({"model_version": "3"})
    function = LinkFunction(client, "ours-link")
    assert function.link("arn:p") == "3"
    function.sign("arn:p")
    function.sign_run("run-1")
    assert client.asked == [
        ("ours-link", {"model_package_arn": "arn:p", "by_event": True}),
        ("ours-link", {"model_package_arn": "arn:p", "sign_only": True}),
        ("ours-link", {"run": "run-1"}),
    ]


@pytest.mark.parametrize("error", [ProvenanceMismatch, ProvenanceMissing])
def test_a_refusal_is_told_from_a_failure_that_may_pass(error: type[RegistryError]) -> None:
    function = LinkFunction(Lambda({"refused": error.code, "reason": "because"}), "ours-link")
    with pytest.raises(error, match="because"):
        function.link("arn:p")
    failed = Lambda({"errorType": "ClientError", "errorMessage": "throttled"}, failed=True)
    with pytest.raises(RegistryError, match="throttled") as found:
        LinkFunction(failed, "ours-link").link("arn:p")
    assert type(found.value) is RegistryError
