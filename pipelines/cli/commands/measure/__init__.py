"""Commands that measure: benchmarks and chaos."""
