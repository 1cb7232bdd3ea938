"""From an integer program to an encrypted circuit, and from a circuit to files."""
