"""Messages, records, names and signed texts that the cloud and the devices exchange.

Everything may import it. It imports neither flwr, torch nor boto3.
"""
