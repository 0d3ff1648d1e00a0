"""GET and PUT of a stand-in's knobs over HTTP, while it runs.

What comes in: JSON objects of knobs to change. What goes out: the knobs in force, or 400 with the
name of the knob that was refused. It must not know what a knob does, nor which stand-in has it.

Runs inside the target's environments: it needs FastAPI.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Generic

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from knobs import KnobError, KnobSet, changed


class KnobHolder(Generic[KnobSet]):
    """The knobs in force. The set is replaced whole, so one request never sees half a change."""

    def __init__(self, knobs: KnobSet) -> None:
        self.current: KnobSet = knobs


def knob_router(
    path: str, holder: KnobHolder[KnobSet], on_change: Callable[[KnobSet], None] | None = None
) -> APIRouter:
    """Return `GET path` and `PUT path`; a PUT changes the knobs it names and keeps the rest."""
    router = APIRouter()

    async def read() -> JSONResponse:
        return JSONResponse(dataclasses.asdict(holder.current))

    async def change(request: Request) -> JSONResponse:
        try:
            changes = json.loads(await request.body())
        except ValueError as error:
            return _refusal(None, f"the body is not JSON: {error}")
        if not isinstance(changes, dict):
            return _refusal(None, "the body must be a JSON object of knobs and their new values")
        try:
            holder.current = changed(holder.current, changes)
        except KnobError as error:
            return _refusal(error.knob, str(error))
        if on_change:
            on_change(holder.current)
        return await read()

    router.add_api_route(path, read, methods=["GET"])
    router.add_api_route(path, change, methods=["PUT"])
    return router


def _refusal(knob: str | None, message: str) -> JSONResponse:
    return JSONResponse({"knob": knob, "error": message}, status_code=400)
