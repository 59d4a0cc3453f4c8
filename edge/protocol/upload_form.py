"""An upload address: a presigned POST as one URL, whose fragment holds the form's fields.

A presigned PUT has no limit; the policy that S3 signs for a POST limits the object's size
(https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html). A fragment is
never sent, so that the rest is the address that the form is sent to.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urldefrag, urlencode


@dataclass(frozen=True, kw_only=True)
class UploadRequest:
    """An HTTP request whose body is ``head``, the file and ``tail``."""

    method: str
    url: str
    headers: dict[str, str]
    head: bytes = b""
    tail: bytes = b""


def form_address(url: str, fields: Mapping[str, str]) -> str:
    """Return the address of a form and its fields."""
    return f"{url}#{urlencode(fields)}"


def upload_request(address: str, size: int) -> UploadRequest:
    """Return the request that uploads a file of ``size`` bytes.

    An address without fields is that of a PUT.
    """
    url, fragment = urldefrag(address)
    if not fragment:
        return UploadRequest(method="PUT", url=url, headers={"Content-Length": str(size)})
    boundary = secrets.token_hex(16)
    # S3 ignores fields after the file, so that it comes last:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
    parts = [_part(boundary, name, value) for name, value in parse_qsl(fragment)]
    head = "".join((*parts, _opening(boundary, 'file"; filename="update'), "\r\n")).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return UploadRequest(
        method="POST",
        url=url,
        headers={
            "Content-Length": str(len(head) + size + len(tail)),
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        },
        head=head,
        tail=tail,
    )


def _part(boundary: str, name: str, value: str) -> str:
    return f"{_opening(boundary, name)}\r\n{value}\r\n"


def _opening(boundary: str, name: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
