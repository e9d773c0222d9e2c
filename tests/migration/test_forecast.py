"""`manage.py forecast`: the arithmetic on figures made up so that the answer is known, and what it says where figures are missing."""

import json
import math
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from migration.bench import forecast

FIGURES = {  # two seconds an account and 100 µs a row; a dry run takes half
    "pieces": {
        "pipeline": {"rows": 300_000, "wall": [40.0, 32.0, 30.0], "cpu_us_per_row": 80.0, "client_cpu_us_per_row": 30.0},
        "dry run": {"rows": 300_000, "wall": [16.0], "cpu_us_per_row": 60.0, "client_cpu_us_per_row": 30.0},
        "two workers": {"rows": 300_000, "wall": [20.0]},
    },
    "accounts": [
        {"rows": 10_000, "wall": 90.0},  # it builds the LinkIndex
        {"rows": 10_000, "wall": 3.0},
        {"rows": 20_000, "wall": 5.0},
        {"rows": 10_000, "wall": 3.0},
        {"rows": 30_000, "wall": 4.0},
    ],
    "phases": {"planned": 4.0, "running": 24.0, "verifying": 4.0},
    "one_worker_uses": 0.5,
    "machine": {"cores": 2},
}
ESTATE = forecast.Estate(audits=1_000_000_000, accounts=20_000, readers=4, cores=8, window_hours=84.0)


def test_the_model_goes_through_what_was_measured():
    model = forecast.fitted(FIGURES)
    assert (model.fixed, model.each, model.dry_run) == (pytest.approx(2.0), pytest.approx(100e-6), pytest.approx(0.5))
    assert model.server_cpu == pytest.approx(80e-6)


def test_its_error_is_told_on_what_it_was_not_fitted_to():
    assert forecast.errors(FIGURES) == {
        "an account of 20,000 activities, one worker": pytest.approx(4.0 / 5.0 - 1),
        "an account of 30,000 activities, one worker": pytest.approx(5.0 / 4.0 - 1),
        "the account of 300,000 activities, two workers": pytest.approx(
            0.0
        ),  # a quarter of 32 s is one worker's; the rest in half the time
    }


def test_more_workers_help_until_something_else_sets_the_pace():
    alone = (20_000 * 2.0 + 1e9 * 100e-6) * 1.5
    assert [(line.workers, line.hours, line.limit) for line in forecast.lines(FIGURES, ESTATE, [1, 4, 16])] == [
        (1, pytest.approx(alone / 3600), "workers"),
        (4, pytest.approx(alone / 4 / 3600), "workers"),
        (16, pytest.approx(alone / 4 / 3600), "the read budget"),
    ]
    few_cores = forecast.Estate(1_000_000_000, 20_000, readers=100, cores=1, window_hours=168.0)
    (line,) = forecast.lines(FIGURES, few_cores, [100])
    assert (line.hours, line.weeks, line.limit) == (
        pytest.approx(80e-6 * 1e9 / 3600),
        pytest.approx(80e-6 * 1e9 / 3600 / 168),
        "the servers' CPU",
    )


def test_the_command_prints_lines_or_one_object(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(FIGURES))
    out = StringIO()
    call_command("forecast", figures=path, readers=4, window_hours=84.0, json=True, stdout=out)
    found = json.loads(out.getvalue())
    assert found.keys() == {"estate", "model", "errors", "lines"} and [line["workers"] for line in found["lines"]] == [1, 2, 4, 8, 16, 32]
    out = StringIO()
    call_command("forecast", figures=path, readers=4, window_hours=84.0, stdout=out)
    assert "      4        15    0.17   workers" in out.getvalue().splitlines()[4]


def test_the_committed_figures_serve():
    out = StringIO()
    call_command("forecast", json=True, stdout=out)
    assert json.loads(out.getvalue())["model"]["each"] > 0


def test_a_file_that_is_none_is_refused_in_words(tmp_path):
    with pytest.raises(CommandError, match=r"nowhere\.json cannot be read"):
        call_command("forecast", figures=tmp_path / "nowhere.json")
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(CommandError, match=r"is not what `manage\.py bench --json` printed"):
        call_command("forecast", figures=other)
    other.write_text("[" * 200_000)
    with pytest.raises(CommandError, match=r"other\.json cannot be read \(RecursionError\)"):
        call_command("forecast", figures=other)
    with pytest.raises(CommandError, match="a week has 168 hours"):
        call_command("forecast", window_hours=200.0)


@pytest.mark.parametrize("option", ["--audits", "--accounts", "--workers", "--readers", "--cores"])
@pytest.mark.parametrize("odd", ["inf", "-inf", "nan", "1e400", "9e307", "0.5", "x"])
def test_a_number_that_is_none_is_refused_in_words(option, odd):
    with pytest.raises(CommandError, match=f"argument {option}: invalid positive value: '{odd}'"):
        call_command("forecast", f"{option}={odd}")


def test_the_largest_estate_is_reckoned():
    out = StringIO()
    call_command("forecast", "--audits=1e15", "--accounts=1e15", "--cores=1", json=True, stdout=out)
    assert all(0 < line["hours"] < math.inf for line in json.loads(out.getvalue())["lines"])
