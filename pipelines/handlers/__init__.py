"""The Lambda functions, one module each. ``handler(event, context)`` is what Lambda calls.

``aws_clients`` makes their clients and ``callback`` holds what two of them share. Nothing outside
this folder imports from it, and no handler imports another.
"""
