"""Expected power of a wind turbine: a Flower app."""
