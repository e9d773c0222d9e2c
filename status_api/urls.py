from django.urls import path

from status_api import api_docs
from status_api.views import AccountMigrationStatus, MigrationStatus, read_only

urlpatterns = [
    path("v1/migration-status", read_only(MigrationStatus.as_view()), name="migration-status"),
    path("v1/accounts/<str:account>/migration-status", read_only(AccountMigrationStatus.as_view()), name="account-migration-status"),
    path("docs/", api_docs.page, name="api-docs"),
    path("openapi.yaml", api_docs.document, name="openapi"),
]
