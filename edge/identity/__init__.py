"""A device's key and certificate, and the public keys that it trusts.

Transports, serving and the agent import it; so do enrolment and the local cloud.
"""
