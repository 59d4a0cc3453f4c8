"""Data, model and training: expected power of a turbine from wind and weather.

Data: La Haute Borne wind farm, ENGIE, 2014-2015, ten-minute means, Licence Ouverte 2.0; it ships
inside the openoa package. Legend: N rows, F = 5 features.
"""

from __future__ import annotations

import functools
import zipfile
from importlib.metadata import distribution

import numpy as np
import pandas as pd
import torch
from torch import nn

RATED_KW = 2050.0
"""Rated power of the Senvion MM82, which also scales the target."""
FEATURES = ("wind_speed", "wind_direction", "temperature", "vane")
COLUMNS = {
    "Wind_turbine_name": "turbine",
    "Date_time": "time",
    "P_avg": "power_kw",
    "Ws_avg": "wind_speed",
    "Wa_avg": "wind_direction",
    "Ot_avg": "temperature",
    "Va_avg": "vane",
}
TRAIN_YEAR, TEST_YEAR = 2014, 2015


class Net(nn.Module):
    """A 5-64-64-1 perceptron: 4,609 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, F) features to (N,) power as a fraction of rated power."""
        return self.layers(x).squeeze(1)


def new_model(seed: int = 0) -> Net:
    """A model with reproducible initial weights."""
    torch.manual_seed(seed)
    return Net()


@functools.cache
def farm() -> pd.DataFrame:
    """The rows of all turbines; rows with a missing value are dropped."""
    package = distribution("openoa")
    archive = next(file for file in package.files or [] if file.name == "la_haute_borne.zip")
    with zipfile.ZipFile(str(package.locate_file(archive))) as zipped:
        rows = pd.read_csv(zipped.open("la-haute-borne-data-2014-2015.csv"), usecols=list(COLUMNS))
    rows = rows.rename(columns=COLUMNS).dropna()
    rows["time"] = pd.to_datetime(rows["time"], utc=True)
    return rows.sort_values(["turbine", "time"], ignore_index=True)


def turbines() -> list[str]:
    """Names of the farm's four turbines."""
    return sorted(str(name) for name in farm()["turbine"].unique())


def partition(index: int, partitions: int) -> pd.DataFrame:
    """The rows of one device: one turbine each. With more devices than turbines, devices share a
    turbine by alternate weeks.
    """
    names = turbines()
    rows = farm()[farm()["turbine"] == names[index % len(names)]]
    shares = -(-partitions // len(names))
    if shares == 1:
        return rows
    week = (rows["time"].dt.dayofyear - 1) // 7
    return rows[week % shares == index // len(names)]


def features(rows: pd.DataFrame) -> np.ndarray:
    """(N, F) float32, scaled by fixed physical constants, so no statistics need to be shared."""
    direction = np.deg2rad(rows["wind_direction"].to_numpy(float))
    columns = [
        rows["wind_speed"].to_numpy(float) / 10.0,
        np.sin(direction),
        np.cos(direction),
        rows["temperature"].to_numpy(float) / 20.0,
        rows["vane"].to_numpy(float) / 20.0,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def tensors(rows: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, F) and target (N,), power as a fraction of rated power."""
    target = (rows["power_kw"].to_numpy(float) / RATED_KW).astype(np.float32)
    return torch.from_numpy(features(rows)), torch.from_numpy(target)


def split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split by time: 2014 to train, 2015 to test. Rows of one hour are alike, so a random split
    would give too low an error.
    """
    year = rows["time"].dt.year
    return rows[year == TRAIN_YEAR], rows[year == TEST_YEAR]


def train(
    model: Net,
    rows: pd.DataFrame,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int = 0,
) -> float:
    """Adam on squared error; returns the last epoch's mean loss."""
    x, y = tensors(rows)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    loss = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            error = nn.functional.mse_loss(model(x[batch]), y[batch])
            error.backward()
            optimizer.step()
            total += error.item() * len(batch)
        loss = total / len(x)
    return loss


def rmse_kw(model: Net, rows: pd.DataFrame) -> float:
    """Root mean squared error in kW."""
    x, y = tensors(rows)
    with torch.no_grad():
        return float(torch.sqrt(nn.functional.mse_loss(model(x), y))) * RATED_KW


def predict(arrays: dict[str, np.ndarray], inputs: pd.DataFrame) -> np.ndarray:
    """Expected power in kW, (N,), for a table with the columns of FEATURES."""
    model = Net()
    model.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    )
    with torch.no_grad():
        return model(torch.from_numpy(features(inputs))).numpy() * RATED_KW


def input_example() -> pd.DataFrame:
    """Rows for a light, a fresh and a strong wind."""
    winds = [[4.0, 200.0, 5.0, 0.0], [8.0, 210.0, 10.0, 1.0], [12.0, 220.0, 15.0, -1.0]]
    return pd.DataFrame(winds, columns=list(FEATURES))
