from django.apps import AppConfig


class StatusApiConfig(AppConfig):
    name = "status_api"
    verbose_name = "Status API"
