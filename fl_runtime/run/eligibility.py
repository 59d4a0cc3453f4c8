"""Which devices may take part in a run now, decided by their last heartbeats.

Requirements (``--require KEY=VALUE``): ``idle`` (true), ``power`` (mains or battery),
``free-memory`` (the minimum, in MiB). Any other key is a label that the device must have with this
value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge.protocol.messages import ORDER_VERSION, ConfigValue, Heartbeat
from fl_runtime.run.devices import DeviceStatus
from fl_runtime.run.errors import RunFailed
from fl_runtime.run.spec import RunSpec


def check_requirements(require: Mapping[str, ConfigValue]) -> None:
    """Raises RunFailed for a requirement that no heartbeat could meet."""
    wanted: dict[str, tuple[bool, str]] = {
        "idle": (isinstance(require.get("idle"), bool), "true or false"),
        "power": (require.get("power") in ("mains", "battery"), "mains or battery"),
        "free-memory": (_is_number(require.get("free-memory")), "a number of MiB"),
    }
    for key, (valid, what) in wanted.items():
        if key in require and not valid:
            raise RunFailed(
                "require", f"The requirement {key} is {require[key]!r}; it must be {what}."
            )


def meets(heartbeat: Heartbeat, require: Mapping[str, ConfigValue]) -> bool:
    """Whether a heartbeat fulfils all requirements."""
    return all(_meets(heartbeat, key, value) for key, value in require.items())


def _meets(heartbeat: Heartbeat, key: str, value: ConfigValue) -> bool:
    if key == "idle":
        return not value or heartbeat.state == "idle"
    if key == "power":
        return heartbeat.power == value
    if key == "free-memory":
        return heartbeat.free_memory >= float(value)
    # Labels are text, and --require line=3 gives a number.
    return heartbeat.labels.get(key) == str(value)


def eligible(
    devices: Iterable[DeviceStatus], spec: RunSpec, now: float, fresh_seconds: float
) -> dict[str, Heartbeat]:
    """The devices that are online, take this cloud's orders, have the run's app with all that it
    imports, and meet its requirements, by name.

    ``now`` is in Unix seconds. A device with a malformed heartbeat is not eligible.
    """
    found = {
        status.device: status.heartbeat
        for status in devices
        if status.heartbeat is not None
        and status.is_online(now, fresh_seconds)
        and not foreign_orders(status.heartbeat)
        and spec.app in status.heartbeat.apps
        and spec.app not in status.heartbeat.lacks
        and meets(status.heartbeat, spec.require)
    }
    return dict(sorted(found.items()))


def foreign_orders(heartbeat: Heartbeat) -> str:
    """Why an agent does not take this cloud's orders; empty if it does."""
    if heartbeat.orders == ORDER_VERSION:
        return ""
    theirs = f"its agent takes orders of protocol {heartbeat.orders}"
    if heartbeat.orders < ORDER_VERSION:
        return f"{theirs}, and this cloud gives {ORDER_VERSION}: update the agent"
    return f"{theirs}, and this cloud gives {ORDER_VERSION}: deploy the agent's release"


def is_of_earlier_release(heartbeat: Heartbeat | None) -> bool:
    """Whether an agent is known to be too old for this cloud's orders and manifests. A last will
    does not tell.
    """
    if heartbeat is None or heartbeat.state == "offline":
        return False
    return heartbeat.orders < ORDER_VERSION


def left_out(
    devices: Iterable[DeviceStatus], app: str, now: float, fresh_seconds: float
) -> dict[str, str]:
    """Why devices that are online cannot take part in a run of an app, by name."""
    online = (status for status in devices if status.is_online(now, fresh_seconds))
    reasons = {
        status.device: foreign_orders(status.heartbeat) or _lacking(status.heartbeat, app)
        for status in online
        if status.heartbeat is not None
    }
    return {device: reason for device, reason in sorted(reasons.items()) if reason}


def _lacking(heartbeat: Heartbeat, app: str) -> str:
    names = heartbeat.lacks.get(app, [])
    return f"the app imports {', '.join(names)}, which it does not have" if names else ""


def _is_number(value: object) -> bool:
    # bool is a subclass of int.
    return isinstance(value, int | float) and not isinstance(value, bool)
