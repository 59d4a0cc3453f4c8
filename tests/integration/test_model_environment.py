"""A registered model needs what its app needs, and says so: it works in a new environment."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from model_environment import APPS, link, predictions

from edge.training.app_bundle import load_app


@pytest.mark.proof
def test_the_registered_digits_model_predicts_in_an_environment_of_its_own_requirements(
    tmp_path: Path,
) -> None:
    before = mlflow.get_tracking_uri()
    try:
        # Its bias says 7 for any picture.
        assert predictions(load_app(APPS / "digits"), tmp_path, link) == [7, 7, 7]
    finally:
        mlflow.set_tracking_uri(before)
