"""What templates use of the gates."""
