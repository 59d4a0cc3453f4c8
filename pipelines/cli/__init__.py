"""The command line: ``main`` parses and reports failures, ``commands/`` has a module for each topic.

Nothing imports from here but the console script and tests.
"""
