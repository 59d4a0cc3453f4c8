"""The kinds of faults, and which of them a seed has (``catalogue``)."""
