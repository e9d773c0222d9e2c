from django.urls import path

from status_api import gallery

urlpatterns = [
    path("", gallery.page, name="badge-gallery"),
    path("<str:name>", gallery.sample, name="badge-sample"),
]
