"""What server, proxies and functions know of a run: specification, state, records, messages, ports
and AWS adapters.
"""
