"""Commands for the operator: clouds, deployment, devices, components."""
