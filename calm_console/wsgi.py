"""The web process: `gunicorn calm_console.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application
from django.db import connection

from calm_console import embedded

# A page gives up what its reader would not wait for, and with it the thread that others need. Workers and commands have longer work to do.
PATIENCE = "-c statement_timeout=60s -c lock_timeout=10s"

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
application = get_wsgi_application()  # reads settings, and with them .env, which may name servers
connection.settings_dict["OPTIONS"]["options"] += f" {PATIENCE}"  # of every thread: they share it
embedded.start(os.environ)
