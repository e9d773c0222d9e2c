"""Notifications: written with what they tell of, delivered once in the ordinary case, and never to an address of an inner network."""

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest
from django.core import mail
from django.db import connections, transaction
from django.urls import reverse

from migration import batch_limits, batches, notify, outbox, runs, tasks, webhook
from migration.models import Batch, BatchItem, Event, Notification
from migration.models.notification import EMAIL, GIVEN_UP, SENT, WAITING, WEBHOOK
from migration.states import BatchState, ItemState, RunMode, RunReason, RunState
from migration.webhook import Undelivered
from tests import factories
from tests.factories import NOON

ROOT = Path(__file__).parents[2]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
MINUTE = timedelta(minutes=1)


class Receiver:
    """A receiver of webhooks on 127.0.0.1: what it was sent, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.headers = 204, {}
        self.wait = 0.0
        self.server = HTTPServer(("127.0.0.1", 0), self.handler())
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def handler(receiver) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                time.sleep(receiver.wait)
                self.send_response(receiver.status)
                for key, value in receiver.headers.items():
                    self.send_header(key, value)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    found.thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


@pytest.fixture
def hook(receiver, settings) -> Receiver:
    """The webhook is set to the receiver, which the setting for inner networks allows."""
    settings.NOTIFY_WEBHOOK_URL = f"http://127.0.0.1:{receiver.port}/calm?token=t"
    settings.NOTIFY_WEBHOOK_SECRET = SECRET
    settings.NOTIFY_WEBHOOK_ALLOW_PRIVATE = True
    return receiver


@pytest.fixture
def post_box(settings) -> None:
    settings.NOTIFY_EMAIL_TO = ["ops@example.com", "lead@example.com"]
    settings.NOTIFY_EMAIL_FROM = settings.DEFAULT_FROM_EMAIL = "calm@example.com"


def ended(state: RunState = RunState.PARTIAL, **fields: Any):
    """A run that ends now, with two candidates quarantined, of which one is waived."""
    run = factories.run(RunState.VERIFYING, **fields)
    chunk = factories.chunk(run)
    factories.quarantined(chunk)
    factories.waived(factories.quarantined(chunk))
    runs.move(run, state, by="w", now=NOON, code=RunReason.QUARANTINED, reason="1 candidate of someone@example.com is quarantined.")
    return run


def deliver(now: datetime = NOON) -> None:
    """What the tick and the worker that it nudges do."""
    for pk in notify.due(now=now):
        notify.send(pk, now=now)


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_is_written_while_nothing_is_set():
    ended()
    assert not Notification.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED])
def test_a_run_that_ends_is_told_on_each_channel(hook, post_box, state):
    run = ended(state)
    body = {
        "kind": f"run.{state}", "at": "2026-03-02T12:00:00+00:00", "run": run.pk, "account": run.account.crm_organization_id,
        "mode": "production", "state": state, "reason_code": "quarantined", "candidates": 10, "quarantined": 1,
    }  # fmt: skip
    found = Notification.objects.order_by("pk")
    assert [(each.channel, each.state, each.body, each.run) for each in found] == [
        (EMAIL, WAITING, body, run), (WEBHOOK, WAITING, body, run)
    ]  # fmt: skip


@pytest.mark.django_db
def test_other_moves_are_not_told_and_a_move_that_is_undone_tells_nothing(hook):
    run = factories.run(RunState.RUNNING)
    runs.pause(run, by="ana", now=NOON)
    with pytest.raises(RuntimeError), transaction.atomic():
        ended()
        raise RuntimeError
    assert not Notification.objects.exists()


@pytest.mark.django_db
def test_a_batch_that_stops_or_is_done_is_told(hook):
    batch = Batch.objects.create(
        name="first", state=BatchState.RUNNING, days=[0], begins="00:00", ends="00:00", zone="UTC", planned_at=NOON, planned_by="ana"
    )
    for position, state in enumerate((ItemState.DONE, ItemState.DONE, ItemState.REFUSED), 1):
        BatchItem.objects.create(batch=batch, position=position, account=factories.account(), state=state)
    assert batch_limits.in_words(list(batch.items.all())) == "Of 3 accounts 2 done, 1 refused."
    batches.move(batch, BatchState.STOPPED, by="w", now=NOON)
    batches.move(batch, BatchState.RUNNING, by="ana", now=NOON)
    batches.move(batch, BatchState.DONE, by="w", now=NOON)
    stopped, done = Notification.objects.order_by("pk").values_list("body", flat=True)
    counts = {"done": 2, "refused": 1}
    assert stopped == {
        "kind": "batch.stopped",
        "at": "2026-03-02T12:00:00+00:00",
        "batch": batch.pk,
        "state": "stopped",
        "accounts": counts,
    }
    assert done["kind"] == "batch.done"


# --- e-mail ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_email_says_ids_states_and_counts_and_nobodys_name(post_box):
    run = ended(account=factories.account(name="Acme of Ms Smith"))
    deliver()
    (message,) = mail.outbox
    assert (message.to, message.from_email) == (["ops@example.com", "lead@example.com"], "calm@example.com")
    assert message.subject == f"CALM console: run {run.pk}, organisation {run.account.crm_organization_id}: partial"
    assert message.body == (
        f"kind: run.partial\nat: 2026-03-02T12:00:00+00:00\nrun: {run.pk}\naccount: {run.account.crm_organization_id}\nmode: production\n"
        f"state: partial\nreason code: quarantined\ncandidates: 10\nquarantined: 1\n\n"
        f"The console's page /admin/migration/run/{run.pk}/change/ has the rest."
    )
    assert Notification.objects.get().state == SENT
    deliver(NOON + timedelta(days=1))
    assert len(mail.outbox) == 1


@pytest.mark.django_db
def test_a_mail_server_that_is_away_is_tried_again_without_a_word_of_its_password(post_box, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_HOST_PASSWORD = "127.0.0.1", 1, "s3cret"
    ended()
    deliver()
    found = Notification.objects.get()
    told = "EMAIL_URL: the mail server did not take it (ConnectionRefusedError)."
    assert (found.state, found.attempts, found.not_before, found.error) == (WAITING, 1, NOON + MINUTE, told)


@pytest.mark.django_db
def test_a_mail_servers_refusal_is_told_by_its_code(post_box, monkeypatch):
    def refuses(message: object) -> int:
        raise smtplib.SMTPSenderRefused(550, b"someone@example.com is unknown", "calm@example.com")

    monkeypatch.setattr(notify.EmailMessage, "send", refuses)
    ended()
    deliver()
    assert Notification.objects.get().error == "EMAIL_URL: the mail server did not take it (SMTPSenderRefused 550)."


# --- the webhook ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_webhook_is_signed_over_id_time_and_body(hook):
    ended()
    deliver()
    ((path, headers, body),) = hook.asked
    found = Notification.objects.get()
    assert (found.state, found.attempts, found.error) == (SENT, 1, "")
    assert path == "/calm?token=t"
    assert json.loads(body) == found.body and len(body) < 300
    assert headers["host"] == f"127.0.0.1:{hook.port}"
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (str(found.uuid), str(int(NOON.timestamp())))
    signed = f"{found.uuid}.{int(NOON.timestamp())}.".encode() + body
    mac = hmac.new(b"0123456789abcdef0123456789abcdef", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"


def test_the_signature_is_that_of_the_standards_own_example():
    """From the reference implementations of standardwebhooks.com."""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = dict(
        webhook.signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now=at)
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_without_prefix_is_a_text_and_a_broken_one_is_said():
    assert webhook.key("any long text") == b"any long text"
    with pytest.raises(Undelivered, match="NOTIFY_WEBHOOK_SECRET begins with whsec_ but is no base64"):
        webhook.key("whsec_***")


@pytest.mark.django_db
@pytest.mark.parametrize("status", [200, 202, 299])
def test_any_2xx_is_success(hook, status):
    """200 is what most receivers answer, and the lowest of them."""
    hook.status, hook.headers = status, {"Content-Length": "0"}
    ended()
    deliver()
    assert (Notification.objects.get().state, len(hook.asked)) == (SENT, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("status", "says"),
    [
        (300, "the receiver answered 300; redirects are not followed."),
        (500, "the receiver answered 500."),
        (302, "the receiver answered 302; redirects are not followed."),
        (410, "the receiver answered 410."),
    ],
)
def test_an_answer_other_than_2xx_is_tried_again(hook, status, says):
    hook.status, hook.headers = status, {"Location": f"http://127.0.0.1:{hook.port}/elsewhere"}
    ended()
    deliver()
    found = Notification.objects.get()
    assert (found.state, found.error) == (WAITING, f"NOTIFY_WEBHOOK_URL: {says}")
    deliver(NOON + timedelta(seconds=59))
    assert len(hook.asked) == 1, "it is not due yet, and nobody followed the redirect"
    hook.status = 204
    deliver(NOON + MINUTE)
    assert Notification.objects.get().state == SENT
    first, second = (headers["webhook-id"] for _, headers, _ in hook.asked)
    assert first == second


@pytest.mark.django_db
def test_attempts_pause_longer_and_longer_and_end_with_an_event(hook):
    hook.status = 503
    run = ended()
    at, pauses = NOON, []
    for _ in range(notify.MOST_ATTEMPTS):
        deliver(at)
        after = Notification.objects.get().not_before
        pauses.append((after - at) // MINUTE)
        at = after
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    found = Notification.objects.get()
    assert (found.state, found.attempts, len(hook.asked)) == (GIVEN_UP, 10, 10)
    told = Event.objects.get(kind="notification given up")
    assert (told.run, told.sentence) == (
        run, f"{found} was given up after 10 attempts: NOTIFY_WEBHOOK_URL: the receiver answered 503."
    )  # fmt: skip
    deliver(at + timedelta(days=1))
    assert len(hook.asked) == 10 and Event.objects.filter(kind="notification given up").count() == 1


@pytest.mark.django_db
def test_one_whose_last_attempt_nobody_ended_is_given_up_too(hook):
    ended()
    Notification.objects.update(attempts=notify.MOST_ATTEMPTS)
    assert notify.due(now=NOON) == []
    assert Notification.objects.get().state == GIVEN_UP
    assert Event.objects.get(kind="notification given up").sentence.endswith("nobody knows whether the last one arrived.")


@pytest.mark.django_db
def test_what_is_sent_is_one_message_and_the_others_still_wait(hook):
    ended(), ended()
    first, second = Notification.objects.order_by("pk")
    hook.status = 503
    notify.send(first.pk, now=NOON)
    hook.status = 204
    notify.send(first.pk, now=NOON + MINUTE)
    told = Notification.objects.order_by("pk").values_list("state", "error", "attempts")
    assert [*told] == [(SENT, "", 2), (WAITING, "", 0)]
    notify.send(second.pk, now=NOON)
    assert len(hook.asked) == 3


@pytest.mark.django_db
def test_the_others_are_not_given_up_with_it(hook):
    spent, other = (ended(), ended())
    Notification.objects.filter(run=spent).update(attempts=notify.MOST_ATTEMPTS)
    assert notify.due(now=NOON) == [Notification.objects.get(run=other).pk]
    assert Notification.objects.get(run=other).state == WAITING


@pytest.mark.django_db
def test_one_that_is_being_tried_for_the_last_time_is_not_given_up_yet(hook):
    ended()
    Notification.objects.update(attempts=notify.MOST_ATTEMPTS, not_before=NOON + MINUTE)
    assert notify.due(now=NOON) == []
    assert Notification.objects.get().state == WAITING


@pytest.mark.django_db
def test_what_is_sent_or_waits_for_its_pause_takes_no_place_from_what_is_due(hook, monkeypatch):
    """A tick sends so many at most, the oldest first: in a year, all of these would be sent ones."""
    monkeypatch.setattr(notify, "MOST_AT_ONCE", 2)
    for _ in range(6):
        ended()
    sent, given_up, pausing, *waiting = Notification.objects.order_by("pk")
    for each, fields in ((sent, {"state": SENT}), (given_up, {"state": GIVEN_UP}), (pausing, {"not_before": NOON + MINUTE})):
        Notification.objects.filter(pk=each.pk).update(**fields)
    assert notify.due(now=NOON) == [each.pk for each in waiting[:2]]
    assert notify.due(now=NOON + MINUTE) == [pausing.pk, waiting[0].pk]


@pytest.mark.django_db(transaction=True)
def test_two_workers_with_one_message_send_it_once(hook):
    hook.wait = 0.3
    ended()
    (pk,) = notify.due(now=NOON)

    def work() -> None:
        try:
            notify.send(pk, now=NOON)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
        time.sleep(0.05)  # the later ones find the first one sending
    for each in workers:
        each.join()
    notify.send(pk, now=NOON + timedelta(days=1))  # a nudge that lay in the queue
    assert len(hook.asked) == 1
    assert Notification.objects.get().state == SENT


@pytest.mark.django_db
def test_the_tick_sends_what_is_due_to_the_workers(hook, monkeypatch):
    sent: list[int] = []
    monkeypatch.setattr(tasks, "nudge_notification", sent.append)
    ended()
    tasks.tick()
    assert sent == [Notification.objects.get().pk]
    tasks.send_notification(notification_id=sent[0])
    assert len(hook.asked) == 1


@pytest.mark.django_db
def test_what_is_no_longer_wanted_is_not_called_sent(hook, post_box, settings):
    ended()
    settings.NOTIFY_WEBHOOK_URL, settings.NOTIFY_EMAIL_TO = "", []
    deliver()
    assert sorted(Notification.objects.values_list("state", "error")) == [
        (WAITING, "NOTIFY_EMAIL_TO is not set any more."),
        (WAITING, "NOTIFY_WEBHOOK_URL is not set any more."),
    ]


# --- where it may go ------------------------------------------------------------------------------------------------


def post(url: str, *, allow_private: bool = False) -> None:
    webhook.post(url, SECRET, "id", b"{}", now=NOON, allow_private=allow_private)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "0.0.0.0",  # noqa: S104 - nothing binds to it
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:a00:1:0:0:80ff:fffe", "::127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not webhook.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_that_are(address):
    assert webhook.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0"])
def test_no_spelling_of_an_inner_address_is_connected_to(receiver, host):
    with pytest.raises(Undelivered, match="an address that is not public"):
        post(f"http://{host}:{receiver.port}/")
    assert receiver.asked == []


def named(monkeypatch, *answers: list[str]) -> list[str]:
    """The system's resolver answers so, one answer after another, the last one for ever; gives the hosts that it was asked for."""
    asked: list[str] = []
    plain = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any, **how: Any) -> list[Any]:
        if host[0].isdigit():
            return plain(host, port, *rest, **how)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def connecting(monkeypatch, instead: str = "") -> list[str]:
    """The addresses to which connections are made; `instead` is where they truly go."""
    found: list[str] = []
    plain: Callable[..., Any] = httpcore.SyncBackend.connect_tcp

    def connect_tcp(self: Any, host: str, port: int, timeout: float | None = None, **rest: Any) -> Any:
        found.append(host)
        return plain(self, instead or host, port, timeout, **rest)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return found


def test_a_name_that_changes_its_mind_is_asked_once_and_what_was_checked_is_connected_to(receiver, monkeypatch):
    asked = named(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    went = connecting(monkeypatch, instead="127.0.0.1")
    post(f"http://receiver.test:{receiver.port}/")
    assert (asked, went) == (["receiver.test"], ["93.184.215.14"])
    assert receiver.asked[0][1]["host"] == f"receiver.test:{receiver.port}"


def test_one_inner_address_among_public_ones_is_enough_to_refuse(receiver, monkeypatch):
    named(monkeypatch, ["93.184.215.14", "10.0.0.1"])
    went = connecting(monkeypatch)
    with pytest.raises(Undelivered, match="set NOTIFY_WEBHOOK_ALLOW_PRIVATE"):
        post(f"http://receiver.test:{receiver.port}/")
    assert went == []


def test_the_next_address_is_tried_where_one_does_not_answer(receiver, monkeypatch):
    named(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # the receiver listens at the second alone
    went = connecting(monkeypatch)
    post(f"http://receiver.test:{receiver.port}/", allow_private=True)
    assert went == ["127.0.0.2", "127.0.0.1"]


def test_a_receiver_that_drips_is_left(receiver, monkeypatch):
    monkeypatch.setattr(webhook, "TIMEOUT", 0.4)
    receiver.wait = 1.0
    began = time.monotonic()
    with pytest.raises(Undelivered, match=r"cannot be reached \(ReadTimeout\)"):
        post(f"http://127.0.0.1:{receiver.port}/", allow_private=True)
    assert time.monotonic() - began < 0.9


def test_over_tls_the_certificate_has_to_show_the_name(receiver, monkeypatch, tmp_path):
    """A receiver whose certificate is for receiver.test, at an address that the name was checked to have."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key,
         "-out", certificate, "-subj", "/CN=receiver.test", "-addext", "subjectAltName=DNS:receiver.test"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    shown: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda sock, name, ctx: shown.append(name)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(httpcore, "default_ssl_context", lambda: trusting)
    monkeypatch.setattr("httpcore._sync.connection.default_ssl_context", lambda: trusting)
    named(monkeypatch, ["127.0.0.1"])
    post(f"https://receiver.test:{receiver.port}/", allow_private=True)
    assert (len(receiver.asked), shown) == (1, ["receiver.test"])
    with pytest.raises(Undelivered, match=r"cannot be reached \(ConnectError\)"):
        post(f"https://other.test:{receiver.port}/", allow_private=True)
    assert len(receiver.asked) == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://receiver.test/x", "it must be https://host/path or http://host/path"),
        ("receiver.test/x", "it must be https://host/path or http://host/path"),
        ("https:///x", "it must be https://host/path or http://host/path"),
        ("https://user:s3cret@receiver.test/", "it must hold no user or password"),
        ("https://receiver.test:99999/", "it cannot be read as a URL"),
        ("http://[::1/", "it cannot be read as a URL"),
        ("https://receiver.test/ü", "it must be ASCII: write the host's name as xn--..., and other characters as %XX"),
        ("https://münchen.test/", "it must be ASCII: write the host's name as xn--..., and other characters as %XX"),
    ],
)
def test_a_url_that_is_none_is_said(url, says):
    with pytest.raises(Undelivered) as caught:
        post(url)
    assert str(caught.value) == f"NOTIFY_WEBHOOK_URL cannot be used: {says}."


def test_a_name_that_nobody_knows_is_said():
    with pytest.raises(Undelivered, match=r"NOTIFY_WEBHOOK_URL: the host name is unknown\."):
        post("https://receiver.invalid/")


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"NOTIFY_WEBHOOK_URL": "https://receiver.test/"}, "NOTIFY_WEBHOOK_SECRET is not set, though NOTIFY_WEBHOOK_URL is"),
        ({"NOTIFY_EMAIL_TO": "ops@example.com"}, "EMAIL_URL is not set, though NOTIFY_EMAIL_TO is"),
        ({"EMAIL_URL": "https://a:s3cret@mail.test"}, "EMAIL_URL must be smtp://"),
        (
            {"EMAIL_URL": "smtp+tls://a:p%40ss@mail.test:587", "NOTIFY_EMAIL_TO": "a@b.c,d@e.f"},
            "mail.test 587 p@ss True 10 ['a@b.c', 'd@e.f']",
        ),
    ],
)
def test_settings_that_belong_together(variables, says):
    shown = "s.EMAIL_HOST, s.EMAIL_PORT, s.EMAIL_HOST_PASSWORD, s.EMAIL_USE_TLS, s.EMAIL_TIMEOUT, s.NOTIFY_EMAIL_TO"
    code = f"from django.conf import settings as s\ntry:\n    print({shown})\nexcept Exception as error:\n    print(error)"
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "calm_console.settings"} | variables
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert says in told.stdout and "s3cret" not in told.stdout


@pytest.mark.django_db
def test_a_dry_run_says_that_it_was_one(hook):
    ended(RunState.SUCCEEDED, mode=RunMode.DRY_RUN)
    assert Notification.objects.get().body["mode"] == "dry_run"
    assert outbox.channels() == [WEBHOOK]


@pytest.mark.django_db
def test_staff_see_what_was_sent_and_what_could_not_be(hook, client):
    hook.status = 500
    run = ended()
    deliver()
    client.force_login(factories.superuser())
    found = Notification.objects.get()
    listed = client.get(reverse("admin:migration_notification_changelist")).content.decode()
    assert "the receiver answered 500" in listed and str(run) in listed
    shown = client.get(reverse("admin:migration_notification_change", args=[found.pk])).content.decode()
    assert "quarantined: 1" in shown and "waiting" in shown
