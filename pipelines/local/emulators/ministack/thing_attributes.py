"""Patch of ministack's IoT: policies may name attributes of the thing that is connected.

https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ministack.services import iot

VARIABLE = re.compile(r"\$\{(iot:[A-Za-z.]+(?:\[[^\]]+\])?)\}")
"""Variables of a policy, with those that have an index."""


def resolve_attributes() -> None:
    """Resolve ``${iot:Connection.Thing.Attributes[NAME]}`` when a device connects."""
    iot._POLICY_VARIABLE_RE = VARIABLE
    iot._mqtt_policy_context = _with_attributes(iot._mqtt_policy_context)


def _with_attributes(original: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    def context_of(account: str, region: str, certificate: str, client: str) -> dict[str, str]:
        context = original(account, region, certificate, client)
        # Only of a thing that the certificate is attached to.
        thing = context.get("iot:connection.thing.thingname")
        if thing is not None:
            context.update(_attributes(account, region, thing))
        return context

    return context_of


def _attributes(account: str, region: str, thing: str) -> dict[str, Any]:
    from ministack.core.responses import request_scope

    with request_scope(account, region):
        attributes = (iot._things.get(thing) or {}).get("attributes", {})
    return {
        f"iot:connection.thing.attributes[{name}]".lower(): value
        for name, value in attributes.items()
    }
