"""The console's URLs with the gallery's before the admin's, which takes every path under its own."""

from django.urls import include, path

from calm_console import urls

urlpatterns = [path("admin/badge/", include("status_api.gallery_urls")), *urls.urlpatterns]
