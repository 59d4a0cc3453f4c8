"""The agent and its apps as Greengrass V2 components."""
