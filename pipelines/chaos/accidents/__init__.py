"""What happens to a user at a shell: Ctrl-C, a killed local cloud, a full disk, MLflow's database
locked or damaged. ``catalogue`` has the kinds; each runs commands (``shell``) in a home of its own.
"""
