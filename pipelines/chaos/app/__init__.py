"""The Flower app that chaos runs federate."""
