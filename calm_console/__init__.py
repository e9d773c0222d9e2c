"""CALM console: moves contact activity from a Rails CRM's audits into a CDP, account by account, provably complete."""
