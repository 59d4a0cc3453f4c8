"""Flower's strategies computed block by block, where they would need all updates in memory."""
