"""Arrays that are not NumPy's numbers: whatever an app's own ``Array(stype=...)`` holds.

Flower carries an array as bytes with three labels, and only who made them can read them. Such
arrays travel as bytes here too. They have NumPy's dtype *void*, so arithmetic on one is an error
instead of a wrong number.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edge.protocol.errors import ProtocolError

NUMPY = "numpy.ndarray"
"""Flower's label of an array in NumPy's own format
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
"""


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The labels of Flower's ``Array``."""

    dtype: Annotated[str, msgspec.Meta(max_length=1000)]
    shape: Annotated[list[int], msgspec.Meta(max_length=64)]
    stype: Annotated[str, msgspec.Meta(max_length=200)]


class OpaqueArray(np.ndarray[Any, Any]):
    """One value of NumPy's void type: the bytes of an array, with the array's labels."""

    form: Form


class Opaque(NamedTuple):
    """Bytes and labels, as Flower's ``Array`` has them."""

    data: bytes
    form: Form


def opaque_array(data: bytes | memoryview, form: Form) -> OpaqueArray:
    """Wrap bytes without a copy.

    Raises:
        ProtocolError: The bytes claim to be in NumPy's format, and are not what the labels say.

    """
    if form.stype == NUMPY and len(data):
        _check_numpy(data)
    size = len(data)
    raw = np.frombuffer(data, np.dtype((np.void, size))) if size else np.empty(1, "V0")
    array = raw.reshape(()).view(OpaqueArray)
    array.form = form
    return array


def opened(array: OpaqueArray) -> Opaque:
    """Return the bytes and labels of an array."""
    return Opaque(array.tobytes(), array.form)


def as_bytes(array: OpaqueArray) -> NDArray[np.uint8]:
    """Return an array's bytes as a tensor can carry them."""
    return np.frombuffer(array.tobytes(), np.uint8)


def forms_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Form]:
    """Return the labels of the opaque arrays among ``arrays``."""
    return {key: array.form for key, array in arrays.items() if isinstance(array, OpaqueArray)}


def _check_numpy(data: bytes | memoryview) -> None:
    """Refuse a header that would make whoever reads it allocate more than came.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    stream = io.BytesIO(bytes(data[:16_384]))
    try:
        major, _ = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        expected = math.prod(shape) * dtype.itemsize
    except Exception as error:  # NumPy's parser raises what it likes
        raise ProtocolError("malformed", "An array is not in NumPy's format.") from error
    if dtype.hasobject or min(shape, default=0) < 0 or stream.tell() + expected != len(data):
        raise ProtocolError(
            "malformed", "An array in NumPy's format has another size than it says."
        )
