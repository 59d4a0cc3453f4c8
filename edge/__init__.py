"""What runs on a device: agent, worker, transports, and the wire protocol. Imports nothing else of
ours.
"""
