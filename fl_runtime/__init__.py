"""What runs in the containers: grid, rounds, cohorts, proxy, server, aggregation, tracking."""
