"""What crosses the wire between the cloud and a device. Imports neither flwr, torch nor boto3."""
