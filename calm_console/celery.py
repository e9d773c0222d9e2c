"""The Celery app: `celery -A calm_console worker` does the work, `celery -A calm_console beat` sends the one tick a minute."""

import gc
import os
import signal
import sys

from billiard import active_children
from celery import Celery
from celery.signals import beat_init, worker_init, worker_process_init, worker_shutting_down

from calm_console import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")

app = Celery("calm_console")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
@beat_init.connect
def start_embedded(**_: object) -> None:
    """A worker or beat on a machine without URLs brings its own servers up."""
    embedded.start(os.environ)


@worker_process_init.connect
def stop_when_told(**_: object) -> None:
    """A child that is told to stop leaves as an inline run does: the chunk in hand is handed back on the way out, uncounted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@worker_process_init.connect
def leave_out_of_collections(**_: object) -> None:
    """What was imported stays until the process ends: no garbage collection need go through it."""
    gc.freeze()


@worker_shutting_down.connect
def tell_children(**_: object) -> None:
    """TERM reaches the parent alone, which would wait for its children's turns to end."""
    for child in active_children():
        child.terminate()
