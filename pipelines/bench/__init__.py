"""What ``mledgeops bench`` runs: a Flower app whose model has any size (``app``)."""
