from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError

from calm_console.demo.logins import ADMIN, LOGINS, STAFF
from migration.models import Account


class Command(BaseCommand):
    help = "Make the demo's logins. Refused on a console that knows any account but the sample's."

    def handle(self, **options):
        if Account.objects.exclude(crm_organization_id__in=(1, 2, 3)).exists():
            raise CommandError(
                "This console holds accounts that are not the sample's: demo logins, whose passwords are public, are not made here."
            )
        for name in LOGINS:
            user, new = User.objects.get_or_create(username=name, defaults={"is_staff": True, "is_superuser": name == ADMIN})
            if new:
                user.set_password(name)
                user.save()
            user.groups.set(Group.objects.filter(name__in=STAFF.get(name, ())))
        self.stdout.write(f"Logins: {', '.join(LOGINS)}; the password of each is its name.")
