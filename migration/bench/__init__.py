"""`manage.py bench`: how fast the pipeline is beside what PostgreSQL itself needs, in scratch databases of its own.

docs/performance.md tells what is measured.
"""
