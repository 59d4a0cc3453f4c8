"""Small changes to the modules that decide, each run against the tests that concern it."""
