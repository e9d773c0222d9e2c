from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate

from gates.groups import let_see


class GatesConfig(AppConfig):
    name = "gates"
    verbose_name = "Gates"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Of the signals, one for each app, the one by which the permissions of all our models are there.
        post_migrate.connect(let_see, sender=apps.get_app_config("auth"), dispatch_uid="gates.let_see")
