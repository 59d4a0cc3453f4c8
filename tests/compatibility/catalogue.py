"""The apps of the suite: what each shows, and how it is written to a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from compatibility.outcome import RELATIVE, Outcome, differences
from edge.training.app_bundle import FlowerApp, load_app

SOURCES = Path(__file__).parent / "apps"
Setting = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class App:
    """One app, from a source that others may share."""

    name: str
    group: str
    shows: str
    """What of Flower it uses."""
    source: str
    config: Mapping[str, Setting] = field(default_factory=dict)
    """``[tool.flwr.app.config]``; ``num-server-rounds`` is added unless ``rounds`` is 0."""
    rounds: int = 2
    devices: int = 4
    client: str = "client"
    also: tuple[str, ...] = ()
    """Further sources that it imports."""
    model: bool = True
    """Whether the run has a model; without one it is an analysis."""
    metrics: bool = True
    """Whether Flower's engine has the rounds' metrics."""
    tolerance: float = RELATIVE
    """Relative, of the model; above that of float32 where the app itself rounds at random."""
    files: tuple[str, ...] = ()
    """What its ServerApp writes, and must be the same."""
    ordered: bool = False
    """Whether its numbers depend on which node has which partition. They are mixed up in Flower's
    simulation engine, which therefore cannot tell.
    """
    needs: str = ""
    """A package that only some platforms have."""
    missing: str = ""
    """What does not work yet, by the issue's number; empty: it works."""

    def differences(self, ours: Outcome, flowers: Outcome, *, files: bool = True) -> list[str]:
        """What a run here has otherwise than one under Flower's engine.

        ``files``: whether the run here was watched for what its ServerApp writes.
        """
        # Flower's engine knows no analyses: it takes for a model whatever was sent last.
        wanted = replace(
            flowers,
            model=flowers.model if self.model else {},
            files={name: flowers.files[name] for name in self.files if files},
        )
        found = differences(ours, wanted, metrics=self.metrics, relative=self.tolerance)
        if bool(ours.model) != self.model:
            found.append(f"the run ends with {'a' if ours.model else 'no'} model")
        return found

    def write(self, folder: Path) -> FlowerApp:
        """Write the app as a Flower user would have it."""
        root, package = folder / self.name, self.name.replace("-", "_")
        inner = root / package
        inner.mkdir(parents=True)
        (inner / "__init__.py").write_text("")
        for source in (self.source, "task.py", *self.also):
            shutil.copy(SOURCES / source, inner / source)
        rounds = {"num-server-rounds": self.rounds} if self.rounds else {}
        config = {**rounds, "num-devices": self.devices, **self.config}
        module = f"{package}.{self.source.removesuffix('.py')}"
        lines = [
            "[project]",
            f'name = "{self.name}"',
            'version = "1.0.0"',
            "[tool.flwr.app]",
            'publisher = "tests"',
            "[tool.flwr.app.components]",
            f'serverapp = "{module}:server"',
            f'clientapp = "{module}:{self.client}"',
            "[tool.flwr.app.config]",
            # JSON's numbers, strings and booleans are TOML's.
            *(f"{key} = {json.dumps(value)}" for key, value in config.items()),
        ]
        (root / "pyproject.toml").write_text("\n".join(lines) + "\n")
        return load_app(root)


def _stock(strategy: str, arguments: str = "{}", **more: object) -> App:
    """A stock strategy with these arguments, in JSON."""
    fields = {
        "name": f"stock-{strategy.lower()}",
        "group": "Strategies",
        "shows": f"`{strategy}`",
        "source": "stock.py",
        "config": {"strategy": strategy, "arguments": arguments},
    }
    return App(**{**fields, **more})  # type: ignore[arg-type]


STRATEGIES = (
    _stock("FedAvg", rounds=3),
    _stock("FedProx", '{"proximal_mu": 0.5}'),
    _stock("FedAvgM", '{"server_learning_rate": 0.8, "server_momentum": 0.9}', rounds=3),
    _stock("FedAdam", '{"eta": 0.1}', rounds=3),
    _stock("FedYogi", '{"eta": 0.1}', rounds=3),
    _stock("FedAdagrad", '{"eta": 0.1}', rounds=3),
    _stock("FedMedian"),
    _stock("FedTrimmedAvg", '{"beta": 0.25}'),
    _stock("Krum", '{"num_malicious_nodes": 1}', devices=6),
    _stock("MultiKrum", '{"num_malicious_nodes": 1, "num_nodes_to_select": 3}', devices=6),
    _stock("Bulyan", '{"num_malicious_nodes": 1}', devices=7),
    _stock("QFedAvg", '{"client_learning_rate": 0.1, "q": 0.2}'),
    _stock(
        "FedAvg",
        '{"fraction_train": 0.5, "fraction_evaluate": 0.5}',
        name="sampling",
        ordered=True,
        shows="`FedAvg` that samples half of the nodes",
        devices=6,
        rounds=3,
    ),
    App(
        name="private-fixed",
        group="Strategies",
        shows="`DifferentialPrivacyServerSideFixedClipping` around `FedAvg`",
        source="private_server.py",
        config={"adaptive": False},
    ),
    App(
        name="private-adaptive",
        group="Strategies",
        shows="`DifferentialPrivacyServerSideAdaptiveClipping` around `FedAvg`",
        source="private_server.py",
        config={"adaptive": True},
    ),
    App(
        name="private-client-fixed",
        group="Strategies",
        shows="`DifferentialPrivacyClientSideFixedClipping` with `fixedclipping_mod`",
        source="private_clients.py",
        config={"privacy": "fixed"},
    ),
    App(
        name="private-client-adaptive",
        group="Strategies",
        shows="`DifferentialPrivacyClientSideAdaptiveClipping` with `adaptiveclipping_mod`",
        source="private_clients.py",
        config={"privacy": "adaptive"},
    ),
    App(
        name="private-local",
        group="Strategies",
        shows="`LocalDpMod`",
        source="private_clients.py",
        config={"privacy": "local"},
    ),
    App(
        name="xgboost-bagging",
        ordered=True,
        group="Strategies",
        shows="`FedXgbBagging` with XGBoost",
        source="xgboost_trees.py",
        config={"cyclic": False},
        rounds=3,
        needs="xgboost",
    ),
    App(
        name="xgboost-cyclic",
        ordered=True,
        group="Strategies",
        shows="`FedXgbCyclic` with XGBoost",
        source="xgboost_trees.py",
        config={"cyclic": True},
        rounds=5,
        needs="xgboost",
    ),
)
METRICS = (
    App(
        name="central-evaluation",
        group="Evaluation and metrics",
        shows="`evaluate_fn` with numpy scalars, and evaluation by the clients",
        source="central_evaluation.py",
        config={"fraction-evaluate": 1.0},
    ),
    App(
        name="central-only",
        group="Evaluation and metrics",
        shows="`evaluate_fn` alone (`fraction_evaluate=0`)",
        source="central_evaluation.py",
        config={"fraction-evaluate": 0.0},
    ),
    App(
        name="train-only",
        group="Evaluation and metrics",
        shows="no evaluation at all",
        source="train_only.py",
    ),
    App(
        name="numpy-metrics",
        group="Evaluation and metrics",
        shows="numpy scalars in a client's metrics and in `train_config`",
        source="numpy_metrics.py",
    ),
    App(
        name="custom-aggregation",
        group="Evaluation and metrics",
        shows="`train_metrics_aggr_fn` and `evaluate_metrics_aggr_fn`, which return numpy scalars",
        source="custom_aggregation.py",
    ),
    App(
        name="nan-metric",
        group="Evaluation and metrics",
        shows="a training loss of NaN",
        source="nan_metric.py",
    ),
)
RECORDS = (
    App(
        name="own-keys",
        group="Messages and records",
        shows="`weighted_by_key`, `arrayrecord_key`, `configrecord_key`",
        source="own_keys.py",
    ),
    App(
        name="config-per-client",
        ordered=True,
        group="Messages and records",
        shows="a configuration for each client, and evaluation every second round",
        source="config_per_client.py",
        rounds=4,
    ),
    App(
        name="scaffold",
        group="Messages and records",
        shows="two array records in a message (SCAFFOLD)",
        source="scaffold.py",
    ),
    App(
        name="personal-layers",
        group="Messages and records",
        shows="replies with some of the model's layers (FedPer), the others in `context.state`",
        source="personal_layers.py",
        config={"order": "w"},
    ),
    App(
        name="reordered-layers",
        group="Messages and records",
        shows="replies with the layers in another order (FedBN)",
        source="personal_layers.py",
        config={"order": "scale,w"},
    ),
    App(
        name="custom-arrays",
        group="Messages and records",
        shows="arrays in a serialization of the app's own (`Array(stype=...)`)",
        source="custom_arrays.py",
    ),
    App(
        name="array-types",
        group="Messages and records",
        shows="arrays of every usual type and shape",
        source="array_types.py",
        model=False,
        rounds=0,
    ),
    App(
        name="record-values",
        group="Messages and records",
        shows="every type of value of a record",
        source="record_values.py",
        model=False,
        rounds=0,
    ),
    App(
        name="large-config",
        group="Messages and records",
        shows="16 MiB of bytes in a configuration record",
        source="large_config.py",
        devices=2,
        model=False,
        rounds=0,
    ),
    App(
        name="node-replies",
        ordered=True,
        group="Messages and records",
        shows="two messages to one node, an unknown node, a failing client, `group_id`",
        source="node_replies.py",
        model=False,
        rounds=0,
    ),
    App(
        name="mods",
        group="Messages and records",
        shows="mods on the app and on a function, `message_size_mod`, `arrays_size_mod`",
        source="mods.py",
    ),
    App(
        name="lifespans",
        group="Messages and records",
        shows="actions, `lifespan` of both sides, `context.state` of a client",
        source="lifespans.py",
        config={"greeting": "hello"},
        model=False,
        rounds=0,
    ),
)
LOOPS = (
    App(
        name="own-rounds",
        group="Loops of the app's own",
        shows="`start(num_rounds=...)` without a setting for it",
        source="own_rounds.py",
        rounds=0,
    ),
    App(
        name="two-starts",
        group="Loops of the app's own",
        shows="two `start()` one after the other",
        source="two_starts.py",
        metrics=False,
    ),
    App(
        name="own-start",
        ordered=True,
        group="Loops of the app's own",
        shows="a strategy that overrides `start`",
        source="own_start.py",
        metrics=False,
    ),
    App(
        name="own-loop",
        group="Loops of the app's own",
        shows="a loop over `send_and_receive` without a strategy",
        source="own_loop.py",
        metrics=False,
    ),
    App(
        name="push-and-pull",
        group="Loops of the app's own",
        shows="`push_messages` and `pull_messages`",
        source="push_and_pull.py",
        metrics=False,
    ),
    App(
        name="pandas-query",
        group="Loops of the app's own",
        shows="federated analytics by `query`, with pandas",
        source="pandas_query.py",
        model=False,
        rounds=0,
    ),
    App(
        name="kaplan-meier",
        group="Loops of the app's own",
        shows="a survival curve; the ServerApp writes a file",
        source="kaplan_meier.py",
        model=False,
        metrics=False,
        rounds=0,
        files=("curve.json",),
    ),
    App(
        name="vertical",
        group="Loops of the app's own",
        shows="vertical learning: columns of the same rows on different clients",
        source="vertical.py",
        rounds=4,
        model=False,
        metrics=False,
    ),
)
FRAMEWORKS = (
    App(
        name="torch-network",
        group="Frameworks and older interfaces",
        shows="PyTorch with batch normalization; the ServerApp writes a file",
        source="torch_network.py",
        files=("layers.txt",),
    ),
    App(
        name="sklearn-legacy",
        group="Frameworks and older interfaces",
        shows="scikit-learn in a `NumPyClient`, `server_fn`",
        source="sklearn_legacy.py",
    ),
    App(
        name="legacy-server",
        group="Frameworks and older interfaces",
        shows="`NumPyClient`, `server_fn` with central evaluation",
        source="legacy_server.py",
        also=("legacy.py",),
    ),
    App(
        name="legacy-workflow",
        group="Frameworks and older interfaces",
        shows="`NumPyClient`, `DefaultWorkflow` in `@app.main()`",
        source="legacy.py",
        config={"secure": False},
        metrics=False,
    ),
    App(
        name="secure-aggregation",
        group="Frameworks and older interfaces",
        shows="SecAgg+ (`secaggplus_mod`, `SecAggPlusWorkflow`)",
        source="legacy.py",
        config={"secure": True},
        client="secure_client",
        metrics=False,
        tolerance=1e-3,
    ),
)
CATALOGUE = STRATEGIES + METRICS + RECORDS + LOOPS + FRAMEWORKS
