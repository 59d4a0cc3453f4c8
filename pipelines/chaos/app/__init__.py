"""The Flower app that the fault suite federates."""
