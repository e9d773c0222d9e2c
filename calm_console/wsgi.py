"""The web process: `gunicorn calm_console.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

from calm_console import embedded, sessions

# A page gives up what its reader would not wait for, and with it the thread that others need. Workers and commands have longer work to do.
PATIENCE = {"statement_timeout": "60s", "lock_timeout": "10s"}

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
application = get_wsgi_application()  # reads settings, and with them .env, which may name servers
sessions.CONSOLE.update(PATIENCE)
embedded.start(os.environ)
