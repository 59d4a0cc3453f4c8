"""A proxy's work: one cohort's part of a phase, and its line to the server. Loads neither torch nor
flwr.
"""
