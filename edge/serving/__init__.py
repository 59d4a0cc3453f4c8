"""The model in use on a device: model store, predictions, their statistics."""
