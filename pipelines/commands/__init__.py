"""The commands of ``mledgeops``, one module a group. Each takes parsed arguments and returns an exit code."""
