from django.contrib.auth.models import Permission, User
from django.core.management.base import BaseCommand, CommandError

from calm_console.demo.logins import LOGINS
from migration.models import Account


class Command(BaseCommand):
    help = "Make the demo's logins. Refused on a console that knows any account but the sample's."

    def handle(self, **options):
        if Account.objects.exclude(crm_organization_id__in=(1, 2, 3)).exists():
            raise CommandError(
                "This console holds accounts that are not the sample's: demo logins, whose passwords are public, are not made here."
            )
        for name, password in LOGINS.items():
            user, new = User.objects.get_or_create(username=name, defaults={"is_staff": True, "is_superuser": name == "demo-admin"})
            if new:
                user.set_password(password)
                user.save()
            if name == "demo-viewer":
                user.user_permissions.set(Permission.objects.filter(content_type__app_label="migration", codename__startswith="view_"))
        self.stdout.write(f"Logins: {', '.join(LOGINS)}.")
