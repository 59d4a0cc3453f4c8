"""Shutting a device out, and letting it in again."""

from __future__ import annotations

from typing import Any

from edge.protocol.names import check_name
from fl_runtime.run.blocking import Block, BlockList
from pipelines.errors import UsageError


def block(iot: Any, blocks: BlockList, device: str, *, reason: str, by: str, at: float) -> Block:
    """Block a device and deactivate its certificates. Raises UsageError for an unknown device.

    The block comes first: it holds at once, and AWS IoT takes minutes to disconnect a device.
    """
    check_name("device", device)
    found = blocks.read().get(device)
    certificates = _active(iot, device)
    held = found.certificates if found is not None else ()
    made = Block(reason=reason, by=by, at=at, certificates=(*held, *certificates))
    blocks.add(device, made)
    for certificate in certificates:
        iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
    return made


def unblock(iot: Any, blocks: BlockList, device: str) -> Block:
    """Reactivate the certificates that the block deactivated, and take it away. Raises UsageError
    for a device that is not blocked.
    """
    found = blocks.read().get(device)
    if found is None:
        raise UsageError(f"{device} is not blocked: `mledgeops fleet` shows who is.")
    for certificate in found.certificates:
        iot.update_certificate(certificateId=certificate, newStatus="ACTIVE")
    blocks.remove(device)
    return found


def _active(iot: Any, device: str) -> list[str]:
    """Ids of a device's certificates that are active."""
    try:
        principals = iot.list_thing_principals(thingName=device)["principals"]
    except iot.exceptions.ResourceNotFoundException as error:
        raise UsageError(f"There is no device {device}: `mledgeops fleet` shows them.") from error
    names = [arn.rsplit("/", 1)[1] for arn in principals]
    described = {
        name: iot.describe_certificate(certificateId=name)["certificateDescription"]
        for name in names
    }
    return [name for name in names if described[name].get("status") == "ACTIVE"]
