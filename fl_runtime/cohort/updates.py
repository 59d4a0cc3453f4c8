"""A device's update in the object store: read whole, and only as what the device announced."""

from __future__ import annotations

import msgspec

from edge.protocol.errors import ProtocolError
from edge.protocol.messages import ObjectRef
from edge.protocol.records import Records, decode_records, digest
from fl_runtime.run.keys import update_key
from fl_runtime.run.messages import DeviceResult, PhaseRequest
from fl_runtime.run.ports import ObjectStore


def read_update(
    objects: ObjectStore, request: PhaseRequest, device: str, update: ObjectRef
) -> Records:
    """Download, compare with its digest, decode; raises ProtocolError or ObjectMissing."""
    blob = objects.get(update_key(request.run, request.phase, device), update.size)
    if digest(blob) != update.digest:
        raise ProtocolError("bad-digest", "the update's digest is not the announced one")
    return decode_records(blob)


def changed_meanwhile(result: DeviceResult, error: Exception) -> DeviceResult:
    """A device's address for its update is good until the deadline: it may write over what was
    checked.
    """
    reason = f"the update was changed after it had been checked: {error}"
    return msgspec.structs.replace(result, status="error", code="bad-digest", reason=reason)
