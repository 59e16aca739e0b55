"""How fast the parts are, each against the plain way to compute the same."""
