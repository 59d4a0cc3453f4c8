"""``python tests/model_environment.py APP``: a logged model works in an environment of its own.

The app's model is logged and registered in a local MLflow store, as a run's server does. Then a
new virtual environment is made from the model's own requirements, and the model is loaded there by
its registered name and predicts on the example that is stored with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge.training.app_bundle import FlowerApp, load_app
from fl_runtime.server.model.artifact import FinalModel, final_model
from fl_runtime.server.model.mlflow_logging import log_to_mlflow

PREDICT = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
import numpy
found = numpy.asarray(model.predict(model.input_example)).ravel()
print(json.dumps(found[:3].tolist()))
"""
APPS = Path(__file__).parents[1] / "notebooks" / "apps"


def untrained(app: FlowerApp) -> FinalModel:
    """A model of the app with its initial weights."""
    sys.path.insert(0, str(app.folder))
    try:
        if app.name == "wind_farm":
            from wind_farm.task import new_model

            arrays = {name: part.numpy() for name, part in new_model().state_dict().items()}
        else:
            arrays = {"0": np.zeros((64, 10), np.float32), "1": np.eye(10, dtype=np.float32)[7]}
    finally:
        sys.path.remove(str(app.folder))
    return final_model(arrays, "loss", "minimize", 1.0)


def install(requirements: Path, folder: Path) -> None:
    """Install requirements into a virtual environment, as a user of the model would."""
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "-r", requirements], check=True)


def link(requirements: Path, folder: Path) -> None:
    """Link the requirements and all that they require into a virtual environment."""
    (site,) = (folder / "lib").glob("python3*/site-packages")
    waiting = [Requirement(line) for line in requirements.read_text().splitlines() if line]
    done = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), *sorted(wanted.extras))
        if key in done:
            continue
        done.add(key)
        found = distribution(wanted.name)
        assert wanted.specifier.contains(found.version, prereleases=True), wanted
        for name in {file.parts[0] for file in found.files or [] if ".." not in file.parts}:
            target = Path(str(found.locate_file(name)))
            if target.exists() and not (site / name).exists():
                (site / name).symlink_to(target)
        extras = [*wanted.extras, ""]
        waiting += [
            needed
            for needed in map(Requirement, found.requires or [])
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras)
        ]


def predictions(app: FlowerApp, folder: Path, fill: Callable[[Path, Path], None]) -> list[Any]:
    """What the registered model predicts on its own example, in its own environment.

    ``fill`` puts the requirements of a file into a virtual environment.
    """
    import mlflow

    store = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(store)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment(app.name, artifact_location=(folder / "a").as_uri())
    run = client.create_run(experiment).info.run_id
    model = log_to_mlflow(run, app, untrained(app))
    version = mlflow.register_model(f"models:/{model}", app.name)
    stored = mlflow.artifacts.download_artifacts(f"models:/{model}", dst_path=str(folder))
    requirements = Path(stored) / "requirements.txt"
    python = folder / "venv" / "bin" / "python"
    pip = [] if fill is install else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", *pip, folder / "venv"], check=True)
    fill(requirements, folder / "venv")
    # Nothing of this checkout may help it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    said = subprocess.run(
        [python, "-c", PREDICT, f"models:/{app.name}/{version.version}"],
        env={**environment, "MLFLOW_TRACKING_URI": store},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise SystemExit(said.stderr)
    found: list[Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the predictions."""
    with tempfile.TemporaryDirectory() as folder:
        app = load_app(Path(sys.argv[1]))
        sys.stdout.write(f"{app.name}: {predictions(app, Path(folder), install)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
