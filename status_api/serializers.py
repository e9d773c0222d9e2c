"""The bodies of SPEC section 7, for the wire and for the OpenAPI document."""

from typing import Any

from django.utils.translation import gettext
from rest_framework import serializers

from migration.models import Run
from status_api.status import State, Status


class EtaSerializer(serializers.Serializer):
    earliest = serializers.DateTimeField()
    latest = serializers.DateTimeField()


class StatusSerializer(serializers.Serializer):
    visible = serializers.BooleanField(help_text="False: show nothing; every other key is null then, but for `stale`.")
    state = serializers.ChoiceField(choices=[state.value for state in State], allow_null=True)
    percent = serializers.IntegerField(min_value=0, max_value=100, allow_null=True, help_text="100 when completed, and not before.")
    activities_done = serializers.IntegerField(min_value=0, allow_null=True)
    activities_total = serializers.IntegerField(min_value=0, allow_null=True, help_text="Null until they were counted.")
    history_from = serializers.DateTimeField(allow_null=True, help_text="When the earliest activity happened that is there.")
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    eta = EtaSerializer(allow_null=True, help_text="When it is to be over; null where nothing can be told.")
    message = serializers.CharField(allow_null=True, help_text="One sentence or more for the customer, in the language of Accept-Language.")
    updated_at = serializers.DateTimeField(allow_null=True, help_text="When the figures changed last.")
    poll_after = serializers.IntegerField(min_value=1, allow_null=True, help_text="Seconds to wait before asking again.")
    stale = serializers.BooleanField(required=False, help_text="Only there, and true, where the figures could not be refreshed.")


class StaffStatusSerializer(StatusSerializer):
    run = serializers.IntegerField(allow_null=True, help_text="The account's latest production run.")
    reasons = serializers.ListField(child=serializers.CharField(), help_text="Why that run is where it is, in sentences.")


class ProblemSerializer(serializers.Serializer):
    detail = serializers.CharField()


def body(status: Status) -> dict[str, Any]:
    """What the customer is told, in the language that is active."""
    told = vars(status) | {"message": gettext(status.message) if status.message else None}
    if not told["stale"]:
        del told["stale"]
    return dict(StatusSerializer(told).data)


def staff_body(status: Status, run: Run | None) -> dict[str, Any]:
    """What the customer is told, and of the latest production run what staff should know."""
    reasons = [run.reason, *run.warnings] if run else []
    return body(status) | {"run": run.pk if run else None, "reasons": [reason for reason in reasons if reason]}
