from django.apps import AppConfig
from django.core.checks import register
from django.db.backends.signals import connection_created


class ConsoleConfig(AppConfig):
    name = "calm_console"

    def ready(self) -> None:
        from calm_console import checks, sessions

        register(checks.consistent)
        connection_created.connect(sessions.set_up_console)
