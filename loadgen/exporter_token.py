"""The bearer token of an exporter that asks for one: an option and the environment in, text out.

A secret is never an option's value, where every process of the machine can read it. The variables
are those of the agent (docs/agent.md), whose reading (exporter/agent/settings.py) nothing of the
load generator may import; keep the two alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FLAG: Final = "--exporter-token-file"
VARIABLE: Final = "TALKSCOPE_TOKEN"
FILE_VARIABLE: Final = "TALKSCOPE_TOKEN_FILE"


class TokenError(ValueError):
    """There is no usable token where one was said to be; the message names the place."""


def read(file: str | Path | None, environment: Mapping[str, str]) -> str | None:
    """The token, or None where none is told.

    `file` is the option's value; without it the environment tells. Raises TokenError.
    """
    where, named = (FLAG, file) if file else (FILE_VARIABLE, environment.get(FILE_VARIABLE))
    told = environment.get(VARIABLE)
    if not named:
        return _usable(VARIABLE, told) if told else None
    if told:
        raise TokenError(f"{VARIABLE} and {where} both tell a token; give one of them")
    try:
        content = Path(named).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise TokenError(f"{where}: cannot read {named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenError(f"{where}: {named} is not UTF-8 text") from error
    if not content:
        raise TokenError(f"{where}: {named} is empty; write the token into it")
    return _usable(f"{where}: {named}", content)


def _usable(where: str, token: str) -> str:
    if not re.fullmatch(r"[!-~]+", token):
        raise TokenError(f"{where}: a token is printable ASCII without spaces, to fit in a header")
    return token
