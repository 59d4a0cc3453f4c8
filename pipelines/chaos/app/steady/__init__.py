"""A deterministic model: anybody can compute again what a run must end with."""
