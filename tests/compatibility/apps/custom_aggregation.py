"""Metrics are aggregated by functions of the app's own, which return numpy scalars."""

import numpy as np
from flwr.app import Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import initial, plain_client

server = ServerApp()
client = plain_client()


def spread(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Mean and standard deviation over the clients, unweighted."""
    records = [next(iter(content.metric_records.values())) for content in contents]
    found = {}
    for name in records[0]:
        if name != weighted_by:
            values = np.array([record[name] for record in records])
            found |= {f"{name}-mean": np.mean(values), f"{name}-std": np.std(values)}
    return MetricRecord(found)


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(train_metrics_aggr_fn=spread, evaluate_metrics_aggr_fn=spread)
    strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=context.run_config["num-server-rounds"]
    )
