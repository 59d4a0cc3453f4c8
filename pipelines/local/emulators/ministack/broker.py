"""Patch of ministack's MQTT broker: a message looks at the subscriptions that may match it.

The broker compares each message with each subscription: 1,000 devices with four topics each make
4,000 comparisons. Nearly all filters are exact topics, which a dictionary finds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

from ministack.services import iot

_topic: ContextVar[str] = ContextVar("topic", default="")
"""The topic, with account and region, of the message that is being published."""


def index_subscriptions() -> None:
    """Keep the subscriptions by topic, with those to a wildcard apart."""
    iot._subscriptions = Subscriptions(iot._subscriptions)
    iot.broker_publish = _publish(iot.broker_publish)
    iot.broker_subscribe = _subscribe(iot.broker_subscribe)
    iot.broker_unsubscribe = _unsubscribe(iot.broker_unsubscribe)


class Subscriptions(dict[str, set[Any]]):
    """Sets of subscriptions by filter. ``values`` are those that may match the current message."""

    def __init__(self, given: dict[str, set[Any]]) -> None:
        super().__init__(given)
        self.wildcards = {name for name in given if _is_wildcard(name)}
        self.filter_of: dict[str, str] = {}
        """Of each subscription, by id: to end one without a look at all."""

    def setdefault(self, name: str, default: set[Any] | None = None) -> set[Any]:
        """As a dictionary's."""
        if _is_wildcard(name):
            self.wildcards.add(name)
        return super().setdefault(name, set() if default is None else default)

    def pop(self, name: str, *default: Any) -> Any:
        """As a dictionary's."""
        self.wildcards.discard(name)
        return super().pop(name, *default)

    def clear(self) -> None:
        """As a dictionary's."""
        self.wildcards.clear()
        self.filter_of.clear()
        super().clear()

    def values(self) -> Iterable[set[Any]]:  # type: ignore[override]  # all that callers need
        """All sets; while a message is published, those whose filter may match its topic."""
        topic = _topic.get()
        if not topic:
            return super().values()
        return [self[name] for name in (topic, *self.wildcards) if name in self]


def _is_wildcard(name: str) -> bool:
    return "+" in name or "#" in name


def _publish(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def publish(account: str, region: str, topic: str, *rest: Any, **more: Any) -> None:
        mark = _topic.set(iot._scoped_topic(account, region, topic))
        try:
            await original(account, region, topic, *rest, **more)
        finally:
            _topic.reset(mark)

    return publish


def _subscribe(original: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    async def subscribe(account: str, region: str, name: str, *rest: Any, **more: Any) -> str:
        identifier = await original(account, region, name, *rest, **more)
        iot._subscriptions.filter_of[identifier] = iot._scoped_topic(account, region, name)
        return identifier

    return subscribe


def _unsubscribe(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def unsubscribe(identifier: str) -> None:
        held = iot._subscriptions
        name = held.filter_of.pop(identifier, None)
        if name is None or name not in held:
            await original(identifier)
            return
        async with iot._broker_lock:
            kept = {s for s in held[name] if s.subscription_id != identifier}
            if kept:
                held[name] = kept
            else:
                held.pop(name)

    return unsubscribe
