"""A PyTorch network with batch normalization; the server saves the final weights to a file."""

import io
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from .task import FEATURES, data, partition_of, round_of

server = ServerApp()
client = ClientApp()


def network() -> nn.Module:
    """The same initial weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


@server.main()
def main(grid: Grid, context: Context) -> None:
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(network().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
    )
    weights = result.arrays.to_torch_state_dict()
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    Path("final_model.pt").write_bytes(buffer.getvalue())
    Path("layers.txt").write_text("\n".join(weights))


def _loaded(message: Message, context: Context) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = network()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = (torch.tensor(part, dtype=torch.float32) for part in data(partition_of(context)))
    return model, x, y[:, None]


@client.train()
def train(message: Message, context: Context) -> Message:
    model, x, y = _loaded(message, context)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(10 * round_of(message) + partition_of(context))
    for at in torch.randperm(len(x), generator=generator).split(10):
        optimizer.zero_grad()
        error = nn.functional.mse_loss(model(x[at]), y[at])
        error.backward()
        optimizer.step()
    metrics = {"num-examples": len(x), "train-loss": error.item()}
    content = RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    model, x, y = _loaded(message, context)
    model.eval()
    with torch.no_grad():
        value = nn.functional.mse_loss(model(x), y).item()
    metrics = MetricRecord({"num-examples": len(x), "loss": value})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
