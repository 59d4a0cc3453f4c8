"""The agent process: commands, heartbeats, IoT jobs, shadow, reply spool; and many agents in one
process (fleet).
"""
