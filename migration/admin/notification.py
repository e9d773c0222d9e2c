from django.contrib import admin
from django.utils.safestring import SafeString

from migration.admin import links
from migration.admin.display import NOTHING, moment, number, pill, visible
from migration.admin.records import RecordAdmin
from migration.models import Notification


@admin.register(Notification)
class NotificationAdmin(RecordAdmin):
    plural = "Notifications"
    list_display = ("shown_name", "shown_state", "about", "channel", "tries", "happened", "shown_error")
    list_filter = ("state", "channel")
    list_select_related = ("run__account", "batch")
    search_fields = ("kind",)
    number_fields = ("run", "batch")
    search_help_text = "Kind, such as run.failed, or the number of a run or batch."
    fields = ("shown_name", "shown_state", "about", "channel", "uuid", "tries", "happened", "next_try", "shown_error", "shown_body")

    @admin.display(description="notification", ordering="pk")
    def shown_name(self, notification: Notification) -> str:
        return visible(notification.kind)

    @admin.display(description="state", ordering="state")
    def shown_state(self, notification: Notification) -> str:
        return pill(notification.state)

    @admin.display(description="about")
    def about(self, notification: Notification) -> SafeString | str:
        record = notification.run or notification.batch
        return links.link(links.page(record), record) if record else NOTHING

    @admin.display(description="attempts", ordering="attempts")
    def tries(self, notification: Notification) -> str:
        return number(notification.attempts)

    @admin.display(description="of", ordering="at")
    def happened(self, notification: Notification) -> str:
        return moment(notification.at)

    @admin.display(description="tried next")
    def next_try(self, notification: Notification) -> str:
        return moment(notification.not_before) if notification.state == "waiting" else NOTHING

    @admin.display(description="last error")
    def shown_error(self, notification: Notification) -> str:
        return visible(notification.error) if notification.error else NOTHING

    @admin.display(description="what it says")
    def shown_body(self, notification: Notification) -> str:
        return visible(", ".join(f"{name}: {value}" for name, value in notification.body.items()))
