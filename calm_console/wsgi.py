"""The web process: `gunicorn calm_console.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

from calm_console import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
application = get_wsgi_application()  # reads settings, and with them .env, which may name servers
embedded.start(os.environ)
