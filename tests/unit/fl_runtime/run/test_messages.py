"""Messages between server and proxy."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from fakes.phases import MODEL, device_result, phase_request

from fl_runtime.run.messages import (
    ArraySpec,
    PhaseRequest,
    Target,
    array_specs,
    failure,
    mismatched_metrics,
    over_selected,
)


def test_a_request_survives_the_wire_and_has_a_key_to_sign_with() -> None:
    request = phase_request("a", "b")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=PhaseRequest) == request
    fields = {**msgspec.to_builtins(request)}
    del fields["key"]
    with pytest.raises(msgspec.ValidationError, match="key"):
        msgspec.convert(fields, PhaseRequest)


def test_specifications_say_name_dtype_and_shape_in_order() -> None:
    found = array_specs({**MODEL, "n": np.array(1, np.int64)})
    assert found == [ArraySpec("w", "<f4", (3,)), ArraySpec("n", "<i8", ())]


def test_results_that_do_not_count_say_why() -> None:
    target = Target("d", 1, "m")
    assert (over_selected(target).status, over_selected(target).code) == ("spare", "spare")
    failed = failure(target, "no-reply", "no reply within 5 s", up=3)
    assert (failed.status, failed.code, failed.bytes_up) == ("error", "no-reply", 3)
    assert mismatched_metrics(device_result("d")).code == "metrics"
