"""Pages of staff that belong to no single record."""

from django.contrib import admin
from django.urls import path

from migration.admin import password_again

urlpatterns = [path("", admin.site.admin_view(password_again.page), name="password-again")]
