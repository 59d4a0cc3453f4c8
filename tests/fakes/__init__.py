"""Small working implementations of our ports, one module a subject.

Each passes the contract suite in ``tests/contract`` that its real adapter passes.
"""
