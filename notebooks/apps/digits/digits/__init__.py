"""Handwritten digits: a small Flower app."""
