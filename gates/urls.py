"""Pages of an account that the gates add to the admin."""

from django.contrib import admin
from django.urls import path

from gates.admin import pack, plan

app_name = "gates"
urlpatterns = [
    path("pack/<int:pk>/", admin.site.admin_view(pack.page), name="pack"),
    path("plan/<int:pk>/", admin.site.admin_view(plan.page), name="plan"),
]
