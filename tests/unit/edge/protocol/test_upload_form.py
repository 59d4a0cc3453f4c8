"""An upload address is a URL, with a form's fields where a policy limits the upload."""

from __future__ import annotations

from edge.protocol.upload_form import form_address, upload_request


def test_an_address_without_fields_is_a_put() -> None:
    request = upload_request("https://host/key?X-Amz-Signature=1", 7)
    assert (request.method, request.url) == ("PUT", "https://host/key?X-Amz-Signature=1")
    assert (request.head, request.tail, request.headers) == (b"", b"", {"Content-Length": "7"})


def test_fields_come_back_as_they_were_given_and_are_never_sent_in_the_address() -> None:
    fields = {"key": "runs/r é/x&y=z#1", "policy": "eyJh+b/c==", "x-amz-date": "20261124T000000Z"}
    request = upload_request(form_address("https://host/", fields), 3)
    assert (request.method, request.url) == ("POST", "https://host/")
    text = request.head.decode()
    for name, value in fields.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n' in text
    assert text.endswith('name="file"; filename="update"\r\n\r\n')
    length = len(request.head) + 3 + len(request.tail)
    assert request.headers["Content-Length"] == str(length)
