"""Small Flower apps that run under Flower's own engine and here, and must give the same numbers.

``apps`` has their sources, ``catalogue`` lists them, ``flower_engine`` and ``our_engine`` run one,
``outcome`` compares what they leave. ``python -m compatibility`` writes docs/compatibility.md, or
runs the apps on a local cloud and in Flower's simulation engine.
"""
