"""How real training is spread over this machine."""
