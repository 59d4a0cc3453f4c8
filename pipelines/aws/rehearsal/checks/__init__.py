"""What AWS refuses, or lets through and breaks later: each check finds one kind of it."""
