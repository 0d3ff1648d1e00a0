"""What panels count with: promtool says what the expressions give."""

import json
import subprocess

import pytest

from grafana.queries import added, off_zero

ERRORS = "opentalking_errors_total"
BY_CODE = added(ERRORS, "code", window="2m")


def born_late(instance):
    """A counter that begins with its first event, at minute 3, and has a second one at minute 6."""
    return f'{ERRORS}{{code="X",instance="{instance}"}}', "_ _ _ 1 1 1 2 2 2 2"


def restarted(instance):
    return f'{ERRORS}{{code="X",instance="{instance}"}}', "5 5 5 0 0 0 0"


@pytest.mark.parametrize(
    ("series", "expr", "minute", "expected"),
    [
        ([born_late("a")], BY_CODE, 2, []),
        ([born_late("a")], BY_CODE, 3, [("X", 1)]),
        ([born_late("a")], BY_CODE, 4, [("X", 1)]),
        ([born_late("a")], BY_CODE, 5, [("X", 0)]),
        ([born_late("a")], BY_CODE, 7, [("X", 1)]),
        ([born_late("a"), born_late("b")], BY_CODE, 3, [("X", 2)]),
        ([restarted("a")], BY_CODE, 4, [("X", 0)]),
        ([born_late("a")], off_zero(BY_CODE, "code"), 2, [("none", 0)]),
        ([born_late("a")], off_zero(BY_CODE, "code"), 3, [("X", 1)]),
        ([born_late("a")], off_zero(BY_CODE, "code"), 5, [("none", 0)]),
        # `increase` does not see the first of its kind.
        ([born_late("a")], f"sum by (code) (increase({ERRORS}[2m]))", 4, [("X", 0)]),
    ],
)
def test_events_are_counted_from_the_first_of_their_kind_on(
    tmp_path, series, expr, minute, expected
):
    found = [{"labels": f'{{code="{code}"}}', "value": value} for code, value in expected]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [{"expr": expr, "eval_time": f"{minute}m", "exp_samples": found}],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
