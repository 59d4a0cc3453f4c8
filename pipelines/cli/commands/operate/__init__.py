"""Commands for operators: local cloud, deployment, devices, components, dashboard."""
