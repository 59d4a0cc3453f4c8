"""Processes forked from one that has imported the large libraries already.

The server task and the Lambda functions need MLflow, Flower and boto3, whose import takes two to
three CPU seconds in each of five processes of a run. On AWS they are separate cold starts; here one
process imports them once (:mod:`server`), and :mod:`client` asks it to fork. Linux only: elsewhere
forking a process with libraries loaded is not safe, and processes are started one by one.
"""
