"""What an app imports is read from its source, without running it."""

from __future__ import annotations

from pathlib import Path

from edge.training.imports import foreign_imports, missing_modules

FILES = {
    "app/__init__.py": "import json",
    "app/client.py": """
import numpy as np, no_such_module.part
from flwr.clientapp import ClientApp
from . import task
from .deep.inner import x
try:
    import maybe
except ImportError:
    maybe = None
if True:
    import conditional
def later():
    import late
raise SystemExit("reading must not run this")
""",
    "app/task.py": "from app import client\nimport no_other_module",
    "app/deep/inner.py": "from .. import helpers\nfrom ..task import y",
    "app/helpers.py": "import csv\nimport = broken",
    "app/unused.py": "import unused_module",
}


def an_app(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_imports_at_the_top_of_whatever_runs_are_found(tmp_path: Path) -> None:
    assert foreign_imports(an_app(tmp_path), "app.client:app") == [
        "flwr.clientapp",
        "json",
        "no_other_module",
        "no_such_module.part",
        "numpy",
    ]
    assert foreign_imports(an_app(tmp_path / "src" / ".."), "gone:app") == ["gone"]


def test_what_the_device_lacks_is_named_and_an_apps_own_packages_count(tmp_path: Path) -> None:
    app = an_app(tmp_path / "app")
    assert missing_modules(app, "app.client:app") == ["no_other_module", "no_such_module"]
    (tmp_path / ".site" / "app" / "no_such_module").mkdir(parents=True)
    assert missing_modules(app, "app.client:app") == ["no_other_module"]
