"""Commands that measure: bench and chaos."""
