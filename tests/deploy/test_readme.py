"""The README's tables against the code they describe."""

import dataclasses
import re

import pytest
from knobs import ProviderKnobs, RuntimeKnobs

from .conftest import DEMO

README = (DEMO / "README.md").read_text()


@pytest.mark.parametrize("kind", [ProviderKnobs, RuntimeKnobs])
def test_every_knob_is_in_the_table_with_its_default(kind):
    rows = {}
    for names, default in re.findall(r"^\| (`.*?) \| (.*?) \|", README, re.MULTILINE):
        rows |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    for field in dataclasses.fields(kind):
        assert field.name in rows
        if isinstance(field.default, bool):
            assert rows[field.name] == str(field.default).lower()
        elif isinstance(field.default, float | int):
            assert float(rows[field.name]) == field.default
