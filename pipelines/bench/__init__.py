"""What ``mledgeops bench`` runs: a Flower app whose model has any size (``app``), and the
work of aggregation by itself (``aggregation_work``)."""
