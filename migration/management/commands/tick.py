from django.core.management.base import BaseCommand

from migration import tasks


class Command(BaseCommand):
    help = "What beat does once a minute: free what dead workers left, go on with batches, see whether gates still stand, and nudge the workers."

    def handle(self, **options):
        if not tasks.tick():
            self.stderr.write(
                "The broker at REDIS_URL does not answer: this tick does a turn of every run's work itself.", lambda text: text
            )
            tasks.turn_for_each()
