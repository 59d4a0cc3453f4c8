"""The agent and its apps as Greengrass V2 components. The command line imports it."""
