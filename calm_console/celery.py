"""The Celery app: `celery -A calm_console worker` does the work, `celery -A calm_console beat` sends the one tick a minute."""

import os
from pathlib import Path

from celery import Celery
from celery.signals import beat_init, worker_init

from calm_console import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")

app = Celery("calm_console")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
@beat_init.connect
def start_embedded(**_: object) -> None:
    """A worker or beat on a machine without URLs brings its own servers up; beat finds the folder for its schedule."""
    Path(app.conf.beat_schedule_filename).parent.mkdir(parents=True, exist_ok=True)
    embedded.start(os.environ)
