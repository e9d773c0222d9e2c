from django.apps import AppConfig
from django.core.checks import register


class ConsoleConfig(AppConfig):
    name = "calm_console"

    def ready(self) -> None:
        from calm_console import checks

        register(checks.consistent)
