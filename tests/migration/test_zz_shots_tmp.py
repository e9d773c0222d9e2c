from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from unittest import mock
import os
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]="true"
import pytest
from playwright.sync_api import sync_playwright
from migration import batch_plans, batches, beats, runs
from migration.batch_plans import Plan
from migration.models import Run, Batch
from migration.states import *
from migration.windows import Window
from tests import factories

NIGHT = datetime(2026, 11, 23, 23, 0, tzinfo=UTC)

@pytest.mark.django_db(transaction=True)
def test_shots(live_server, settings, client):
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody@127.0.0.1:1/nothing"
    settings.ALLOWED_HOSTS=["*"]
    rev = factories.mapping()
    names = ["Andalas Motor", "Borneo Palm Trading", "Celebes Coffee Roasters", "Delta Mutiara Logistics", "Ende Textile", "Flores Dive", "Gunung Agung Books"]
    accounts = [factories.account(name=n) for n in names]
    for n, a in enumerate(accounts[:5]):
        factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=a, mapping_revision=rev, candidates=20000*(n+1), started_at=NIGHT-timedelta(days=2), finished_at=NIGHT-timedelta(days=2)+timedelta(minutes=40*(n+1)))
    w = Window(frozenset(range(5)), time(22), time(6), "Asia/Jakarta")
    now = NIGHT - timedelta(hours=7)
    b = batch_plans.plan(Plan("first wave", accounts, w, at_once=2, canary=1, most_failures=1, most_quarantined=Decimal(2)), by="ana", now=now)
    beats.advance(now=now)
    r = b.items.get(position=1).run
    runs.move(r, RunState.RUNNING, by="w1", now=now, candidates=20000, started_at=now); runs.move(r, RunState.VERIFYING, by="w1", now=now); runs.move(r, RunState.SUCCEEDED, by="w1", now=now)
    beats.advance(now=now)
    r = b.items.get(position=2).run
    if r: runs.move(r, RunState.RUNNING, by="w1", now=now, candidates=20000, started_at=now); runs.move(r, RunState.FAILED, by="w1", now=now, reason="Chunk 3 failed: KeyError.")
    beats.advance(now=now)
    done = batch_plans.plan(Plan("pilot", [factories.account(name="Halmahera Spices")], w), by="bo", now=now)
    batches.cancel(done, by="bo", now=now)
    stopped_accounts=[factories.account(name=n) for n in ("Irian Timber","Java Moss")]
    s = batch_plans.plan(Plan("second wave, the large ones", stopped_accounts, w, canary=1), by="bo", now=now)
    beats.advance(now=now)
    r = s.items.get(position=1).run
    runs.move(r, RunState.RUNNING, by="w1", now=now, candidates=20000, started_at=now); runs.move(r, RunState.FAILED, by="w1", now=now, reason="Verification disagrees: 3 candidates are missing in the CDP.")
    beats.advance(now=now)
    client.force_login(factories.superuser("demo-admin"))
    cookie = client.cookies["sessionid"].value
    with mock.patch("django.utils.timezone.now", lambda: now), sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox","--disable-gpu","--no-first-run","--disable-background-networking","--disable-component-update","--disable-sync"])
        for scheme, width in (("light",1280),("dark",1280),("light",420)):
            ctx = browser.new_context(viewport={"width":width,"height":900}, color_scheme=scheme)
            ctx.add_cookies([{"name":"sessionid","value":cookie,"url":live_server.url}])
            page = ctx.new_page()
            def shot(name, path):
                if path: page.goto(live_server.url+path)
                page.screenshot(path=f"/tmp/batchshots/{name}-{scheme}-{width}.png", full_page=True)
            shot("list","/admin/migration/batch/")
            shot("batch",f"/admin/migration/batch/{b.pk}/change/")
            shot("stopped",f"/admin/migration/batch/{s.pk}/change/")
            shot("resume",f"/admin/migration/batch/{s.pk}/act/resume/")
            shot("cancel",f"/admin/migration/batch/{b.pk}/act/cancel/")
            new=[factories.account(name=f"Kalimantan {i}") for i in range(1)]
            page.goto(live_server.url+f"/admin/migration/batch/plan/?accounts={new[0].crm_organization_id}")
            page.fill("#id_name","third wave"); page.fill("#id_find","Kalim"); page.click("text=Find and add")
            page.fill("#id_zone","Asia/Jakarta")
            page.click("text=Show what would start when")
            shot("plan",None)
            page.fill("#id_accounts","12x 999999"); page.click("text=Show what would start when")
            shot("wrong",None)
            ctx.close()
        browser.close()
