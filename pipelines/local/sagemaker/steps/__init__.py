"""The steps of an execution: their order (``runner``), and one module for each kind of step."""
