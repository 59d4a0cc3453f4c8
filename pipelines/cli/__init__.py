"""The command line: ``main`` parses and reports failures, ``commands/`` has the commands.

Nothing imports from here but the console script and tests.
"""
