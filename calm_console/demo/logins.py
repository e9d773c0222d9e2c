"""The demo's logins, for a console on loopback that holds nothing but the sample."""

LOGINS = {"demo-admin": "demo-admin", "demo-viewer": "demo-viewer"}
