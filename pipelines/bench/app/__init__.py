"""A Flower app with next to no training, to measure what a round costs besides it."""
