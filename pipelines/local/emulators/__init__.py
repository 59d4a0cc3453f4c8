"""Emulators of AWS services, and what they lack: ECS tasks, metric filters, IAM for moto.

``ministack/`` is the patched emulator's own process; the other modules run in the daemon, which is
their only user.
"""
