"""What an approver judges a candidate by: evidence, drift, pre-checks, model card."""
