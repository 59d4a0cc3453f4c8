"""A model of any size with little training, which notes when each device was asked."""
