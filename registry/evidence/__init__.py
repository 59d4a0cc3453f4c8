"""The evidence that an approver judges a candidate by, and what is made of it.

``collect`` gathers it once, when the version is registered; ``prechecks``, ``card`` and ``charts``
read it. :mod:`registry.linking` publishes all of it.
"""
