"""What an app may use of Flower, and how each of it runs here.

The one place that says so: ``mledgeops check`` prints it for an app, and ``docs/compatibility.md``
lists all of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """A part of Flower's interface."""

    name: str
    runs: str
    """How it runs here, in a sentence."""


FEATURES = {
    "weighted-mean": Feature(
        "a strategy that is a weighted mean (FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, "
        "FedAdagrad)",
        "Each cohort answers with the weighted mean of its devices: the same result, and the "
        "server's memory does not grow with the devices.",
    ),
    "every-update": Feature(
        "another stock strategy",
        "It receives the update of every device by itself, as under Flower.",
    ),
    "trees": Feature(
        "FedXgbBagging, FedXgbCyclic",
        "It receives the trees of every device by itself; they have no layout to be checked "
        "against.",
    ),
    "own-strategy": Feature(
        "a strategy of the app's own",
        "Its methods are called as by Flower, with the update of every device by itself. Where it "
        "aggregates by its own code, replies are bounded and not held against the model's layout; "
        "--checks strict does that.",
    ),
    "privacy": Feature(
        "a strategy wrapper or mod for differential privacy",
        "It runs as under Flower, with the update of every device by itself.",
    ),
    "own-metrics": Feature(
        "train_metrics_aggr_fn, evaluate_metrics_aggr_fn",
        "They are called with the reply of every device, so cohorts do not average.",
    ),
    "central-evaluation": Feature(
        "evaluate_fn",
        "It is called on the server after each round; its metrics are recorded with the round.",
    ),
    "no-evaluation": Feature(
        "no evaluation by the clients (fraction_evaluate=0)",
        "The model is judged by evaluate_fn's metrics, else by the training's; without any, a "
        "precheck holds it.",
    ),
    "fixed-rounds": Feature(
        "a number of rounds in the code",
        "The app's own call decides; --rounds needs a setting that the call reads.",
    ),
    "several-starts": Feature(
        "several start() in one ServerApp",
        "They run one after the other; a server that is replaced goes on in the right one.",
    ),
    "own-start": Feature(
        "a strategy that overrides start()",
        "It runs as written. Rounds are recorded by the server-round that its messages carry; "
        "--strategy, --resume, --selection and --quorum need Flower's start().",
    ),
    "own-loop": Feature(
        "messages that the ServerApp sends itself",
        "They run as written, and are recorded by the server-round that they carry. A run that "
        "sends no arrays is an analysis: it registers no model.",
    ),
    "push-and-pull": Feature(
        "push_messages, pull_messages",
        "Pushing returns at once, and replies are pulled as they come.",
    ),
    "query": Feature(
        "query messages",
        "They reach the devices like any other message; nothing is registered for them.",
    ),
    "actions": Feature(
        "functions by action (train.NAME)", "The device calls the function of that name."
    ),
    "mods": Feature("mods", "They wrap the app's functions on the device, in their order."),
    "lifespan": Feature(
        "lifespan", "It wraps each message on the device, and the run on the server."
    ),
    "state": Feature(
        "context.state",
        "A client's is kept on its device by run and app. Tables in the ServerApp's are logged "
        "with the run.",
    ),
    "custom-arrays": Feature(
        "Array(stype=...)", "Its bytes travel as they are; only the app reads them."
    ),
    "client-fn": Feature(
        "client_fn (NumPyClient)",
        "It runs with strategies of either interface: records are translated on the device.",
    ),
    "server-fn": Feature(
        "server_fn",
        "Flower's older loop runs the app's strategy. --strategy, --resume, --selection and "
        "--quorum need @app.main().",
    ),
    "workflow": Feature(
        "DefaultWorkflow, LegacyContext",
        "Flower's workflow runs as written, over the devices.",
    ),
    "secure-aggregation": Feature(
        "SecAgg+",
        "Its stages run between the devices' mods and Flower's workflow; the server sees masked "
        "updates only.",
    ),
    "files": Feature(
        "files that the app writes",
        "Those that the ServerApp leaves in its working directory are kept with the run.",
    ),
    "no-server": Feature(
        "no ServerApp",
        "FedAvg over all devices, from the app's initial-arrays or a client's get_parameters.",
    ),
}
"""By key."""
