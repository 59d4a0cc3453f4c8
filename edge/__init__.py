"""What runs on a device: agent, training, serving, transports, and the wire protocol.

Layers, each importing only those before it: protocol, errors, files, clock, config, logs, frames,
object_transfer; identity; transports; training; serving; agent. ``greengrass`` stands beside the
agent. Every other package may import from here; nothing here imports another package of ours.
"""
