"""``mledgeops chaos``: seeded faults over real runs, and what must hold after each."""
