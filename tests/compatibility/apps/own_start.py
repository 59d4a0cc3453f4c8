"""A strategy that overrides ``start``: training in pairs, without an evaluation."""

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

from .task import initial, plain_client

server = ServerApp()
client = plain_client()


class Pairs(FedAvg):
    """Each round trains half of the clients after the other half."""

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3) -> Result:  # type: ignore[override]
        result = Result(arrays=initial_arrays)
        for number in range(1, num_rounds + 1):
            messages = list(self.configure_train(number, result.arrays, ConfigRecord(), grid))
            messages.sort(key=lambda message: message.metadata.dst_node_id)
            for half in (messages[::2], messages[1::2]):
                replies = grid.send_and_receive(half)
                arrays, metrics = self.aggregate_train(number, replies)
                result.arrays = arrays or result.arrays
                result.train_metrics_clientapp[number] = metrics or MetricRecord()
            asked = self.configure_evaluate(number, result.arrays, ConfigRecord(), grid)
            found = self.aggregate_evaluate(number, grid.send_and_receive(asked))
            result.evaluate_metrics_clientapp[number] = found or MetricRecord()
        return result


@server.main()
def main(grid: Grid, context: Context) -> None:
    rounds = context.run_config["num-server-rounds"]
    result = Pairs().start(grid, initial(), rounds)
    context.state["losses"] = ConfigRecord(
        {"loss": [result.evaluate_metrics_clientapp[n]["loss"] for n in range(1, rounds + 1)]}
    )
