"""Lambda's runtime, and which wheels run on it."""

from __future__ import annotations

PYTHON = "3.12"
"""The functions' Python. From 3.12 on the runtimes are Amazon Linux 2023; 3.11 and older are Amazon
Linux 2, whose glibc is too old for wheels of numpy and cryptography:
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
"""
GLIBC = (2, 34)
"""Amazon Linux 2023's glibc: https://docs.aws.amazon.com/linux/al2023/ug/compare-with-al2.html"""
TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")
"""Wheels' platforms that this glibc runs."""
