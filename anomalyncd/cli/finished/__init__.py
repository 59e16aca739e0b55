"""The verbs that take a finished run."""
