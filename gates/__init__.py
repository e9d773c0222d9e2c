"""Gates: what must be confirmed, on evidence and by those who own the risk, before anything moves."""
