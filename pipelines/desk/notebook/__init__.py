"""The notebook's API: a desk on a cloud, runs that one can hold on to, models, tables."""
