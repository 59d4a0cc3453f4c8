"""Which signed orders are new to this device: no captured one is carried out again.

The device's own clock may be wrong, so it is not asked. Time is what signed orders say: the
latest time of issue is kept durably, and an order whose deadline lies before it is refused. Each
message id is used once for each time of issue: a command that the cloud sends again is signed
again, and one that somebody else sends again is not.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import msgspec

from edge.files import make_folder, write_atomically
from edge.logs import event
from edge.protocol.errors import ProtocolError
from edge.protocol.messages import Claim, Command
from edge.typed import from_json

logger = logging.getLogger(__name__)

KEPT = 64
"""Message ids remembered. Far more than wait for a device at once; when one has to go, no order as
old as it is accepted any more.
"""


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    latest: int = 0
    """Latest time of issue, in Unix milliseconds as all times here."""
    floor: int = 0
    """Orders issued until then are refused."""
    issued: dict[str, int] = {}
    """By digest of the message id: when its last order was issued."""


class Freshness:
    """Remembers the orders that this device has begun, in one file. Threads may share it.

    A file that cannot be read counts as none. On a disk that cannot be written, orders are
    remembered until the process ends.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = _read(file)
        self._lock = threading.Lock()

    def latest(self) -> float:
        """Return when the latest order that was carried out had been issued, in Unix seconds."""
        return self._seen.latest / 1000

    def use(self, order: Command | Claim) -> None:
        """Take note of an order that is about to be carried out.

        Raises:
            ProtocolError: ``outdated`` when it was begun before, or is too old.

        """
        name = hashlib.sha256(order.message_id.encode()).hexdigest()[:32]
        deadline = order.issued + int(order.seconds * 1000)
        # Two threads could both find the same order new.
        with self._lock:
            seen = self._seen
            if deadline < seen.latest:
                raise ProtocolError("outdated", "The order's deadline had passed when it came.")
            if order.issued <= max(seen.floor, seen.issued.get(name, -1)):
                raise ProtocolError("outdated", "The order was seen before, or is too old to tell.")
            self._keep(max(seen.latest, order.issued), {**seen.issued, name: order.issued})

    def _keep(self, latest: int, issued: dict[str, int]) -> None:
        newest = sorted(issued.items(), key=lambda item: item[1], reverse=True)
        forgotten = [moment for _, moment in newest[KEPT:]]
        self._seen = _Seen(latest, max(self._seen.floor, *forgotten, 0), dict(newest[:KEPT]))
        try:
            make_folder(self._file.parent)
            write_atomically(self._file, msgspec.json.encode(self._seen), durable=True)
        except OSError as error:
            event(logger, "orders-not-kept", logging.WARNING, reason=str(error))


def _read(file: Path) -> _Seen:
    try:
        return from_json(file.read_bytes(), type=_Seen)
    except FileNotFoundError:
        return _Seen()
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        event(logger, "orders-forgotten", logging.WARNING, reason=str(error))
        return _Seen()
