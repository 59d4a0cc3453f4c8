"""A run's specification is checked when it is read."""

from __future__ import annotations

import msgspec
import pytest
from fakes.runs import spec

from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import Champion, decode_spec


def test_a_specification_survives_storage() -> None:
    the_spec = spec(strategy="FedAdam", strategy_params={"eta": 0.1}, require={"idle": True})
    assert decode_spec(msgspec.json.encode(the_spec)) == the_spec


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_rounds": -1}, "num_rounds"),
        ({"app": "short"}, "app"),
        ({"over_selection": 0.5}, "over_selection"),
        ({"selection": "stratified:"}, "selection"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_malformed_one_is_refused_with_the_field(changes: dict, text: str) -> None:
    fields = {**msgspec.to_builtins(spec()), **changes}
    with pytest.raises(RunFailed, match=text) as refused:
        decode_spec(msgspec.json.encode(fields))
    assert refused.value.code == "bad-run"


def test_no_champion_is_stored_as_null() -> None:
    champion = Champion(model_version="x/1", digest="d", app="a", key="k")
    for value in (champion, None):
        data = msgspec.json.encode(value)
        assert msgspec.json.decode(data, type=Champion | None) == value
