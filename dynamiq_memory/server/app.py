"""The ASGI application."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Any

import dynamiq_memory
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import DynamiqMemoryError, MissingDependencyError
from dynamiq_memory.server.settings import Settings

try:
    from fastapi import FastAPI
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, Response

    from dynamiq_memory.server import items, memories, models, search
    from dynamiq_memory.server.access import Service
    from dynamiq_memory.server.errors import add_handlers, log_failure
    from dynamiq_memory.server.guard import Guard, Observer, parse_rate
    from dynamiq_memory.server.metrics import Metrics
except ImportError as error:
    raise MissingDependencyError(
        f"the memory service needs {error.name}: pip install 'dynamiq-memory[server]'"
    ) from error

from dynamiq_memory.server.keys import KeyStore

_PAGES = {"/": "index.html", "/docs": "api.html"} | {f"/{name}": name for name in ("viewer.js", "viewer.css", "api.js")}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_PROBLEMS = {
    400: "The body is not valid JSON.",
    401: "The key is missing or invalid.",
    403: "The key is for another memory or user.",
    404: "The memory does not exist.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    415: "The content type is not JSON.",
    422: "The request is invalid.",
    429: "Too many requests.",
    500: "The store failed.",
    503: "The store cannot be reached, or the request took too long.",
}
_NO_MESSAGE = {"message_id": "-", "user_id": "-", "session_id": "-"}


def create_app(store: MemoryBackend, keys: KeyStore | None = None, settings: Settings | None = None) -> FastAPI:
    """Create the application.

    Args:
        store: The store with the messages. The caller closes it.
        keys: The API keys to require. With None, anyone who can reach the service is admitted.
        settings: The limits.
    """
    settings = Settings() if settings is None else settings
    parse_rate(settings.rate)  # fail now, not at the first request
    metrics = Metrics()
    app = FastAPI(
        title="dynamiq-memory",
        version=dynamiq_memory.__version__,
        description="Conversation memory for AI agents.",
        docs_url=None,  # FastAPI's page loads scripts from another site
        redoc_url=None,
        middleware=[
            Middleware(Observer, metrics=metrics),
            Middleware(Guard, keys=keys, settings=settings, metrics=metrics),
        ],
    )
    app.state.service = Service(store, settings, metrics)
    add_handlers(app)
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": models.Problem, "description": text} for status, text in _PROBLEMS.items()
    }
    app.include_router(memories.router, responses=problems)
    app.include_router(search.router, responses=problems)
    app.include_router(items.router, responses=problems)
    _add_health(app, store, metrics)
    _add_viewer(app)
    return app


def _add_health(app: FastAPI, store: MemoryBackend, metrics: Metrics) -> None:
    failing: dict[int | str, dict[str, Any]] = {
        503: {"model": models.Health, "description": "The store does not respond."}
    }

    probe = asyncio.Lock()  # without a key, anyone could fill the store's threads otherwise

    @app.get("/healthz", response_model=models.Health, responses=failing, tags=["operation"])
    async def health() -> Response:
        """Report whether the store responds."""
        try:
            async with probe:
                await store.aget_all(1, _NO_MESSAGE)
        except DynamiqMemoryError as error:
            log_failure("the store does not respond", error)
            return JSONResponse({"status": "failing"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def prometheus() -> Response:
        """Return the counters in Prometheus text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_viewer(app: FastAPI) -> None:
    folder = resources.files("dynamiq_memory.server") / "static"
    for path, name in _PAGES.items():
        _add_file(app, path, (folder / name).read_bytes(), _TYPES[name.rpartition(".")[2]])


def _add_file(app: FastAPI, path: str, body: bytes, media_type: str) -> None:
    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(body, media_type=media_type)
