"""The gates for staff. One file per noun; exhibits/ shows what each probe found, pack.py and plan.py are pages of an account."""

from gates.admin import evidence, gate, logins, milestone, signoff

__all__ = ["evidence", "gate", "logins", "milestone", "signoff"]
