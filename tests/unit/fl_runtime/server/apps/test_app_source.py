"""What an app uses of Flower, found in its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_runtime.server.apps.app_source import uses_of
from fl_runtime.server.apps.features import FEATURES

STRATEGY = "from flwr.serverapp.strategy import FedAvg\n"


def found(folder: Path, *texts: str) -> dict[str, str]:
    """The features that files with these texts use, each with its name and place."""
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"m{number}.py")
        files[-1].write_text(text)
    uses = uses_of(files, folder)
    return {use.feature: f"{use.what} {use.file}:{use.line}" for use in reversed(uses)}


@pytest.mark.parametrize(
    ("text", "feature", "place"),
    [
        (STRATEGY + "FedAvg().start(grid, a)", "weighted-mean", "FedAvg m0.py:2"),
        ("import flwr.serverapp.strategy as s\ns.Krum()", "every-update", "Krum m0.py:2"),
        (STRATEGY + "class Own(FedAvg): ...", "own-strategy", "Own m0.py:2"),
        (
            STRATEGY + "FedAvg(fraction_evaluate=0.0)",
            "no-evaluation",
            "fraction_evaluate=0 m0.py:2",
        ),
        (STRATEGY + "FedAvg().start(grid=g, num_rounds=3)", "fixed-rounds", "num_rounds m0.py:2"),
        ("grid.push_messages([])", "push-and-pull", "push_messages m0.py:1"),
        ("def main(grid):\n    grid.send_and_receive([])", "own-loop", "send_and_receive m0.py:2"),
        (
            "from flwr.app import Array\nArray(stype='x')",
            "custom-arrays",
            "Array(stype=...) m0.py:2",
        ),
        ("open('a', 'w')", "files", "open m0.py:1"),
        ("import torch as t\nt.save({}, 'a')", "files", "save m0.py:2"),
        (
            "from flwr.client.mod import secaggplus_mod\nx = secaggplus_mod",
            "secure-aggregation",
            "",
        ),
    ],
)
def test_a_feature_is_found_where_it_is_used(
    tmp_path: Path, text: str, feature: str, place: str
) -> None:
    uses = found(tmp_path, text)
    assert feature in uses
    assert feature in FEATURES
    assert place in uses[feature]


def test_a_strategy_by_way_of_another_file_is_a_strategy(tmp_path: Path) -> None:
    uses = found(
        tmp_path,
        STRATEGY + "class Base(FedAvg): ...",
        "from .m0 import Base\nclass Own(Base):\n    def start(self, grid):\n"
        "        return grid.send_and_receive([])",
    )
    assert uses["own-start"] == "Own m1.py:2"
    assert "own-loop" not in uses, "the messages are the strategy's"


def test_two_starts_are_told_from_one_and_from_threads(tmp_path: Path) -> None:
    one = "s.start(grid=grid, initial_arrays=a)\n"
    assert "several-starts" not in found(tmp_path, one + "thread.start()\nserver.start(8080)")
    assert found(tmp_path, one + one)["several-starts"] == "start m0.py:2"


def test_names_of_the_apps_own_and_files_that_are_no_python_are_not_flowers(tmp_path: Path) -> None:
    nested, binary = "(" * 5000, "x = '\0'"
    texts = ("class FedAvg: ...\nFedAvg()\nopen('a')", "def (", nested, binary, "a" + ".b" * 3000)
    assert found(tmp_path, *texts) == {}
