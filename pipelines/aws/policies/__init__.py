"""IAM and IoT policies, by who carries them. One statement list a role; no role shares another's.

``tests/integration/test_least_privilege.py`` holds them against the calls of recorded journeys:
what was called is granted, and what is granted is called or explained.
"""
