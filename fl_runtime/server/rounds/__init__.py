"""The round loop and what it decides: grid, quorum, selection, stopping, checkpoints, strategies."""
