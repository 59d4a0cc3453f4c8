"""Weights count by their digest, and are read once as long as they do not change."""

from __future__ import annotations

import os
from pathlib import Path

from edge.protocol.records import digest
from edge.serving.weights import WeightFiles


def test_a_file_is_whole_by_its_digest_and_read_again_when_it_changed(tmp_path: Path) -> None:
    files, file = WeightFiles(), tmp_path / digest(b"weights")
    assert (files.are_whole(file), files.are_known(file)) == (False, True)
    file.write_bytes(b"weights")
    assert not files.are_known(file)
    assert (files.are_whole(file), files.are_known(file)) == (True, True)
    file.write_bytes(b"Weights")
    os.utime(file, (1.0, 1.0))
    assert not files.are_known(file)
    assert (files.are_whole(file), files.are_known(file)) == (False, True)
    file.write_bytes(b"weights")
    assert files.are_whole(file)
