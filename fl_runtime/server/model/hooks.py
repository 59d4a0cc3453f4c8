"""Functions that an app names in ``[tool.mledgeops]``: predict, input-example, initial-arrays."""

from __future__ import annotations

import importlib
from typing import Any

from edge.training.app_bundle import AppError, FlowerApp
from edge.training.app_modules import app_on_path


def load_hook(app: FlowerApp, name: str) -> Any:
    """The object that the app names as ``module:attribute``, or None; raises AppError."""
    reference = app.settings.get(name, "")
    if not reference:
        return None
    module, _, attribute = str(reference).partition(":")
    with app_on_path(app.folder):
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise AppError(
                f"[tool.mledgeops] {name} = {reference!r} cannot be loaded: {error}"
            ) from error
