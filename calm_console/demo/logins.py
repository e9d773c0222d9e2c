"""The demo's logins, for a console on loopback that holds nothing but the sample. The password of each is its name."""

# Login -> groups; one person for each owner group, as nobody signs for two groups of one gate.
STAFF = {
    "demo-viewer": ("viewer",),
    "demo-mapper": ("viewer", "mapper"),
    "demo-operator": ("operator",),
    "demo-crm-squad": ("CRM Squad",),
    "demo-platform": ("Platform",),
    "demo-dba": ("CRM DBA",),
    "demo-cdp": ("CDP",),
    "demo-rfc": ("RFC reviewer",),
    "demo-design": ("Design",),
    "demo-delivery": ("Delivery",),
}
ADMIN = "demo-admin"
LOGINS = (ADMIN, *STAFF)
SIGNERS = {groups[0]: name for name, groups in STAFF.items() if groups[0] not in ("viewer", "operator")}
