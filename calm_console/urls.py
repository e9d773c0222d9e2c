from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/gates/", include("gates.urls")),
    path("admin/password-again/", include("migration.urls")),
    path("admin/badge/", include("status_api.gallery_urls")),
    path("admin/", admin.site.urls),
    path("api/", include("status_api.urls")),
]

handler500 = "calm_console.errors.server_error"
