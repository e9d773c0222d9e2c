"""Gates: what must be confirmed before anything moves. Until the catalogue exists, policies.py answers for it."""
