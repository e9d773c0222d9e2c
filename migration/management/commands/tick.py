from django.core.management.base import BaseCommand

from migration import tasks


class Command(BaseCommand):
    help = "What beat does once a minute: nudge the workers for every run that has work."

    def handle(self, **options):
        tasks.tick()
