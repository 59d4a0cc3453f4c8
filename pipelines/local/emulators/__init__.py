"""The emulator of AWS with our patches, and what it lacks: ECS tasks, metric filters, IAM for moto."""
