"""Lambda handlers: pure functions, and thin entry points that wire them with clients.

Each module's ``handler(event, context)`` is what Lambda calls.
"""
