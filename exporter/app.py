"""The exporter over HTTP: `/metrics`, `/healthz`, `/readyz` and the ingest.

What comes in: requests. What goes out: expositions and answers. It must not know sources, turns
or sinks beyond the `Exporter` it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter import __version__, steady_clock
from exporter.service import Exporter
from exporter.sources.ingest import BadBatchError

log = logging.getLogger(__name__)

LARGEST_BODY = 4 * 1024 * 1024


def create_app(exporter: Exporter) -> FastAPI:
    """The ASGI application; its lifespan runs the exporter."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(exporter.run())
        yield
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("the exporter stopped with an error")

    app = FastAPI(title="Talkscope exporter", version=__version__, lifespan=lifespan, docs_url=None)
    app.add_middleware(Cors, origins=lambda: exporter.config.cors_origins)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        body, content_type = exporter.metrics.render(request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ready when the target can be read; the body names what cannot, and why."""
        down = {h.name: h.reason for h in exporter.health if not h.up and h.failures}
        ready = exporter.http.health.up
        return JSONResponse({"ready": ready, "down": down}, status_code=200 if ready else 503)

    @app.get("/v1/clock")
    async def clock() -> dict[str, float]:
        return {"unix": steady_clock.now()}

    @app.get("/v1/target")
    async def target() -> dict[str, Any]:
        """What the exporter knows of the deployment, for `talkscope doctor` and the bench."""
        return exporter.describe() | {"open_turns": exporter.open_turns}

    @app.get("/v1/sessions/{session}/speech")
    async def speech(session: str) -> JSONResponse:
        """With which RTP timestamps the session's latest speech began, as the agent told."""
        began = exporter.speeches.of(session)
        if began is None:
            return JSONResponse({"error": "no agent told of a speech of it"}, status_code=404)
        age = max(0.0, steady_clock.now() - began.entered)
        return JSONResponse({"age_seconds": age, "video": began.video, "audio": began.audio})

    def too_large() -> JSONResponse:
        exporter.ingest.health.drop("too_large")
        problem = f"a batch is at most {LARGEST_BODY} bytes; send fewer records"
        return JSONResponse({"error": problem, "field": "body"}, status_code=413)

    @app.post("/v1/marks", status_code=202)
    async def marks(request: Request) -> JSONResponse:
        # The limit comes first: it also slows down who guesses tokens.
        wait = exporter.ingest.wait(request.client.host if request.client else "")
        if wait > 0:
            return _refused(
                429, "too many batches from this address", {"retry-after": str(math.ceil(wait))}
            )
        if not exporter.ingest.knows(_bearer(request)):
            return _refused(
                401,
                "send the configured token as `Authorization: Bearer …`",
                {"www-authenticate": "Bearer"},
            )
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > LARGEST_BODY:
            return too_large()
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return too_large()
        try:
            accepted, duplicates = exporter.take_marks(bytes(body))
        except BadBatchError as error:
            return JSONResponse({"error": str(error), "field": error.field}, status_code=400)
        return JSONResponse({"accepted": accepted, "duplicates": duplicates}, status_code=202)

    return app


class Cors:
    """Starlette's CORS rules for a list of origins that may change; none at all while empty."""

    def __init__(self, app: ASGIApp, origins: Callable[[], tuple[str, ...]]) -> None:
        self._app = app
        self._origins = origins
        self._ruled_for: tuple[str, ...] = ()
        self._ruled = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on."""
        origins = self._origins()
        if origins != self._ruled_for:
            self._ruled_for = origins
            self._ruled = self._with_rules(origins) if origins else self._app
        await self._ruled(scope, receive, send)

    def _with_rules(self, origins: tuple[str, ...]) -> ASGIApp:
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type"),
            expose_headers=("retry-after",),
        )


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _refused(status: int, problem: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"error": problem}, status_code=status, headers=headers)
