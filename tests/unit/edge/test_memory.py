"""How much memory a training process could use."""

from __future__ import annotations

from pathlib import Path

from edge.memory import usable_memory


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_the_machines_memory_counts_and_a_smaller_limit_of_the_service(tmp_path: Path) -> None:
    proc = written(
        tmp_path / "proc",
        meminfo="MemTotal: 4096000 kB\nMemAvailable: 2048000 kB\n",
        cgroup="9:name=systemd:/\n0::/agents/mine\n",
    )
    groups = tmp_path / "groups"

    def usable() -> int:
        return usable_memory(proc / "meminfo", proc / "cgroup", groups)

    assert usable() == 2000
    written(groups / "agents" / "mine", memory__max="max", memory__current="5")
    assert usable() == 2000
    limit, used, cached = 600 * 2**20, 300 * 2**20, 100 * 2**20
    written(
        groups / "agents",
        memory__max=str(limit),
        memory__current=str(used),
        memory__stat=f"anon 1\ninactive_file {cached}\n",
    )
    assert usable() == 400
    written(groups / "agents", memory__current=str(2 * limit))
    assert usable() == 1, "none is left, which is not the same as unknown"
    assert usable_memory(tmp_path / "none", tmp_path / "none", tmp_path / "none") == 0
