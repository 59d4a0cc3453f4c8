"""Secrets Manager in memory."""

from __future__ import annotations

from typing import Any


class MemorySecrets:
    """Secrets Manager in a dictionary."""

    class exceptions:  # as boto3 names it
        class ResourceExistsException(Exception):
            pass

        class ResourceNotFoundException(Exception):
            pass

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def create_secret(self, Name: str, SecretString: str) -> None:
        if Name in self.values:
            raise self.exceptions.ResourceExistsException
        self.values[Name] = SecretString

    def put_secret_value(self, SecretId: str, SecretString: str) -> None:
        self.values[SecretId] = SecretString

    def get_secret_value(self, SecretId: str) -> dict[str, Any]:
        return {"SecretString": self.values[SecretId]}

    def delete_secret(self, SecretId: str, ForceDeleteWithoutRecovery: bool) -> None:
        if SecretId not in self.values:
            raise self.exceptions.ResourceNotFoundException
        del self.values[SecretId]
