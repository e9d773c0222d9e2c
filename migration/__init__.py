"""The main job. Start reading at pipeline/flow.py (one chunk) and runs.py (one run); states.py names what they can be in."""
