"""Greengrass cores, for operators: the thing and the IoT policy that a core is installed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edge.protocol.names import check_name
from pipelines.deployment import Deployment
from pipelines.devices.tokens import FLEET_ATTRIBUTE


def expect_core(d: Deployment, iot: Any, fleet: str, device: str, policy: Mapping[str, Any]) -> str:
    """Create a core's thing and its policy (idempotent); returns the policy's name.

    A core that is expected again for another fleet moves to it. ``policy``: its document. Raises
    ProtocolError for an illegal name.
    """
    check_name("fleet", fleet)
    check_name("device", device)
    attributes = {"attributes": {FLEET_ATTRIBUTE: fleet}}
    try:
        iot.create_thing(thingName=device, thingTypeName=d.thing_type, attributePayload=attributes)
    except iot.exceptions.ResourceAlreadyExistsException:
        iot.update_thing(thingName=device, attributePayload={**attributes, "merge": True})
    iot.add_thing_to_thing_group(thingGroupName=d.thing_group, thingName=device)
    name = f"{d.prefix}-core-{device}"
    text = msgspec.json.encode(policy).decode()
    try:
        iot.create_policy(policyName=name, policyDocument=text)
    except iot.exceptions.ResourceAlreadyExistsException:
        _replace_policy(iot, name, text)
    return name


def _replace_policy(iot: Any, name: str, text: str) -> None:
    """Make a text the policy's version in force. AWS IoT keeps five: the others are deleted."""
    for version in iot.list_policy_versions(policyName=name)["policyVersions"]:
        if not version["isDefaultVersion"]:
            iot.delete_policy_version(policyName=name, policyVersionId=version["versionId"])
    iot.create_policy_version(policyName=name, policyDocument=text, setAsDefault=True)
