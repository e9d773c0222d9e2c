"""The console's copy of the CDP's accounts, where the CDP gives organisations to other accounts."""

import io
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from migration import accounts, batch_plans
from migration.management.output import account_of
from migration.models import Account
from tests import factories
from tests.migration.conftest import now

FIRST, SECOND, NEW = (UUID(int=number) for number in (1, 2, 3))


def there(cdp_id: UUID, organisation: int) -> str:
    return f"INSERT INTO accounts (id, crm_organization_id, name) VALUES ('{cdp_id}', {organisation}, 'at {organisation}')"


def moves(cdp_id: UUID, organisation: int) -> str:
    return f"UPDATE accounts SET crm_organization_id = {organisation} WHERE id = '{cdp_id}'"


def leaves(cdp_id: UUID) -> str:
    return f"DELETE FROM accounts WHERE id = '{cdp_id}'"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ([leaves(FIRST), there(NEW, 501)], {(FIRST, 501, True), (SECOND, 502, False), (NEW, 501, False)}),
        ([moves(FIRST, 503), there(NEW, 501)], {(FIRST, 503, False), (SECOND, 502, False), (NEW, 501, False)}),
        ([moves(FIRST, 503), moves(SECOND, 501), moves(FIRST, 502)], {(FIRST, 502, False), (SECOND, 501, False)}),
        ([leaves(FIRST), moves(SECOND, 501)], {(FIRST, 501, True), (SECOND, 501, False)}),
    ],
    ids=["made anew", "a new one takes it", "swapped", "taken over"],
)
def test_an_organisation_comes_to_another_account(console, changes, wanted):
    console.change_cdp(there(FIRST, 501), there(SECOND, 502))
    accounts.sync(now=now())
    console.change_cdp(*changes)
    accounts.sync(now=now())
    assert set(Account.objects.filter(cdp_id__in=[FIRST, SECOND, NEW]).values_list("cdp_id", "crm_organization_id", "gone")) == wanted
    [of_501] = [cdp_id for cdp_id, organisation, gone in wanted if organisation == 501 and not gone]
    assert account_of(501).cdp_id == of_501
    assert [account.cdp_id for account in batch_plans.accounts_of("501")] == [of_501]
    again = accounts.sync(now=now())
    assert (again.new, again.changed, again.gone) == (0, 0, 0)


def test_one_that_comes_back_to_a_free_organisation_is_there_again(console):
    console.change_cdp(there(FIRST, 501))
    accounts.sync(now=now())
    console.change_cdp(leaves(FIRST), there(NEW, 501))
    accounts.sync(now=now())
    console.change_cdp(leaves(NEW), there(FIRST, 501))
    out = io.StringIO()
    call_command("sync_accounts", stdout=out)
    assert "4 accounts in the CDP: 0 new, 1 changed, 1 gone." in out.getvalue()
    assert account_of(501).cdp_id == FIRST


@pytest.mark.django_db
def test_two_that_are_there_never_have_the_same_organisation():
    factories.account(crm_organization_id=501)
    with pytest.raises(IntegrityError, match="account_organization_once"), transaction.atomic():
        factories.account(crm_organization_id=501)
    for _ in range(2):
        factories.account(crm_organization_id=501, gone=True)
