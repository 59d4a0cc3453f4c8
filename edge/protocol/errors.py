"""Why a message from the other side was refused.

    ProtocolError            carries a short machine-readable ``code`` that is counted per device
"""

from __future__ import annotations


class ProtocolError(Exception):
    """A message, name or object that breaks the protocol.

    ``code`` is stable and counted in metrics; the message is one sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
