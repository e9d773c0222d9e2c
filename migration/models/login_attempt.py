from django.db import models


class LoginAttempt(models.Model):
    """A password that was tried and has not been found right. logins.py alone writes it; names and addresses are keyed digests."""

    address = models.CharField(max_length=64)
    pair = models.CharField(max_length=64, help_text="The name and the address together.")
    at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()  # nobody sees or edits it
        indexes = [models.Index(fields=["address", "-at"], name="login_attempt_of_address")]

    def __str__(self) -> str:
        return f"Login attempt {self.pk}"
