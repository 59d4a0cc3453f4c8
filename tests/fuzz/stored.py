"""Objects of the registry, as somebody else who can write into the bucket may leave them.

A reader raises one error of the registry, or counts it as none.
"""

from __future__ import annotations

from fakes.keys import RECORDS
from fakes.objects import MemoryObjects
from fakes.trail import MemoryEntries

from fl_runtime.run.keys import model_key
from registry.audit import AuditTrail
from registry.errors import RegistryError
from registry.evidence.collect import read_evidence
from registry.policy import POLICY_KEY, recorded_policy
from registry.provenance import EVIDENCE, RECORD, ProvenanceRecords


def stored(data: bytes) -> None:
    """Everything that the registry reads is ``data``."""
    objects, entries = MemoryObjects(), MemoryEntries()
    entries.data["audit/00000001.json"] = data
    trail = AuditTrail(entries)
    for key in (POLICY_KEY, model_key("r", RECORD), model_key("r", EVIDENCE)):
        objects.put(key, data)
    list(trail.entries())
    trail.verify()
    trail.append(at=1.0, who="ann", what="approve", subject="x/1", why="")
    assert trail.decision("x/1") == "approve", "garbage hides no entry"
    read_evidence(objects, "r")
    for read in (
        lambda: recorded_policy(objects, trail),
        lambda: ProvenanceRecords(objects, RECORDS.verify).read("r"),
    ):
        try:
            read()
        except RegistryError as error:
            assert str(error).isprintable()
