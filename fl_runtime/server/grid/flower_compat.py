"""The private parts of Flower that the server uses, in one place.

Flower promises only ``flwr.app``, ``flwr.clientapp`` and ``flwr.serverapp``; the rest may move in a
patch release. What the worker on a device uses is in :mod:`edge.training.flower_compat`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.compat.server import ServerAppComponents
from flwr.server import Server, ServerConfig, SimpleClientManager
from flwr.server.compat import start_grid
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Bulyan, Result, Strategy
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from flwr.supercore.run import Run
from numpy.typing import NDArray

SERVER_NODE_ID = 1
"""Flower's node id of the server."""
FlowerRun: TypeAlias = Run
"""Flower's description of a run."""

_ERROR_CODES = {
    "app-load": ErrorCode.LOAD_CLIENT_APP_EXCEPTION,
    "app-missing": ErrorCode.INVALID_FAB,
    "app-error": ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    "worker-died": ErrorCode.CLIENT_APP_CRASHED,
    "no-reply": ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    "not-sent": ErrorCode.NODE_UNAVAILABLE,
}


def name_message(message: Message, message_id: str) -> None:
    """Set an outgoing message's id, which a reply refers to; Flower sets it when it sends."""
    message.metadata.__dict__["_message_id"] = message_id


def make_reply(message: Message, content: RecordDict) -> Message:
    """A device's reply to ``message``."""
    return Message(content, reply_to=message)


def make_error(message: Message, code: str, reason: str) -> Message:
    """A device's failure as an error reply, with the nearest of Flower's error codes."""
    return Message(
        Error(code=_ERROR_CODES.get(code, ErrorCode.UNKNOWN), reason=f"{code}: {reason}"),
        reply_to=message,
    )


def empty_run(run_id: int) -> FlowerRun:
    """Flower's description of a run, for apps that ask the grid for it."""
    return Run.create_empty(run_id)


def averages_metrics(strategy: Any) -> bool:
    """Whether a strategy of FedAvg's kind aggregates metrics with Flower's own function."""
    return (
        strategy.train_metrics_aggr_fn is aggregate_metricrecords
        and strategy.evaluate_metrics_aggr_fn is aggregate_metricrecords
    )


def valid_replies(strategy: Any, replies: Sequence[Message]) -> list[RecordDict]:
    """The contents that a strategy of FedAvg's kind aggregates, checked and logged by its code."""
    valid, _ = strategy._check_and_log_replies(replies, is_train=True)
    return [reply.content for reply in valid]


def selects_by_multikrum(strategy: Bulyan) -> bool:
    """Whether Bulyan's first step is Flower's own."""
    return strategy.selection_rule is select_multikrum


def mean_of_closest(reference: NDArray[Any], rows: list[NDArray[Any]], count: int) -> NDArray[Any]:
    """The mean of those ``count`` rows that are closest to the reference, element by element."""
    (mean,) = aggregate_n_closest_weights([reference], [[row] for row in rows], count)
    return cast("NDArray[Any]", mean)


def uses_server_fn(app: ServerApp) -> bool:
    """Whether the app uses Flower's older ``server_fn`` interface instead of ``@app.main()``."""
    return app._main is None  # what @app.main() registers


def client_functions(app: ClientApp) -> list[str]:
    """The functions that a ClientApp registers, such as ``train.default``; of the older
    ``client_fn`` interface: train and evaluate.
    """
    if app._call is not None:
        return ["train.default", "evaluate.default"]
    return sorted(app._registered_funcs)


def uses_client_fn(app: ClientApp) -> bool:
    """Whether the app uses Flower's older ``client_fn`` interface."""
    return app._call is not None


def server_components(app: ServerApp, context: Context) -> ServerAppComponents:
    """The components from an app's ``server_fn``, or from its deprecated constructor arguments."""
    if app._server_fn is not None:
        return app._server_fn(context)
    return ServerAppComponents(
        server=app._server,
        config=app._config,
        strategy=app._strategy,
        client_manager=app._client_manager,
    )


def start_compatible(components: ServerAppComponents, strategy: Any, grid: Grid) -> None:
    """Run Flower's compatibility loop with ``strategy`` in the place of the app's."""
    manager = components.client_manager or SimpleClientManager()
    server = components.server or Server(client_manager=manager)
    # A server object of the app's own brings its strategy with it.
    server.strategy = strategy
    if server.max_workers is None:
        # Each client is asked from a thread of its own: all at the same time, not six at a time.
        server.set_max_workers(max(1, len(list(grid.get_node_ids()))))
    start_grid(grid=grid, server=server, config=components.config or ServerConfig())


@contextlib.contextmanager
def round_loop(grid_type: type[Grid], loop: Callable[..., Any]) -> Iterator[None]:
    """Within the context, ``Strategy.start`` on a ``grid_type`` calls ``loop(self, grid, ...)``.

    On other grids, such as a wrapper of the app's own, it runs Flower's loop.
    """
    # Patched on the base class: apps call start() on strategies of any class, their own included.
    original = Strategy.start

    def start(self: Strategy, grid: Grid, *args: Any, **kwargs: Any) -> Any:
        if isinstance(grid, grid_type):
            return loop(self, grid, *args, **kwargs)
        return original(self, grid, *args, **kwargs)

    Strategy.start = cast(Any, start)
    try:
        yield
    finally:
        Strategy.start = original


@contextlib.contextmanager
def own_starts(see: Callable[[Result], None]) -> Iterator[None]:
    """Within the context, ``see`` gets what strategies that override ``start`` return."""
    changed: list[tuple[type[Strategy], Any]] = []
    waiting = list(Strategy.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if "start" in vars(kind):
            changed.append((kind, vars(kind)["start"]))
            kind.start = _seen(vars(kind)["start"], see)
    try:
        yield
    finally:
        for kind, start in changed:
            kind.start = start


def _seen(start: Callable[..., Any], see: Callable[[Result], None]) -> Callable[..., Any]:
    @functools.wraps(start)
    def seen(*args: Any, **kwargs: Any) -> Any:
        result = start(*args, **kwargs)
        if isinstance(result, Result):
            see(result)
        return result

    return seen


def readdressed(message: Message, node_id: int) -> Message:
    """A message to another device with the same content object: both belong to one phase."""
    return Message(
        message.content,
        node_id,
        message.metadata.message_type,
        ttl=message.metadata.ttl,
        group_id=message.metadata.group_id,
    )
