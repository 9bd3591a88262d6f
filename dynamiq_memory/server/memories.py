"""Endpoints that list, begin, describe and empty the memories of a key.

A memory is not stored as such: it begins with its first message. So the memories are those that keys name.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import JSONResponse, Response

import dynamiq_memory
from dynamiq_memory.memory import Memory
from dynamiq_memory.server import models
from dynamiq_memory.server.access import RequestAccess, Service
from dynamiq_memory.server.bodies import BodyRoute
from dynamiq_memory.server.errors import ProblemError
from dynamiq_memory.server.keys import APIKey

_PAGE = 25


class _TextConvertor(PathConvertor):
    """A part of a path with any characters. A `path` would end before a newline, and so be another user's id."""

    regex = r"[\s\S]+"


register_url_convertor("text", _TextConvertor())
router = APIRouter(prefix="/v1/memories", tags=["memory"], route_class=BodyRoute)


@router.get("", response_model=models.MemoriesResponse)
async def list_memories(
    request: Request,
    page_size: Annotated[int, Query(ge=1, le=500)] = _PAGE,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """List the memories that the key is valid for. A service without keys has no list, since any id is a memory."""
    known = _known(request)
    if known is None:
        raise ProblemError(404, "NotFound", "without keys, any id is a memory, so they cannot be listed")
    shown = [_described(each) for each in known[(page - 1) * page_size : page * page_size]]
    return JSONResponse({"data": shown, "pagination": models.pagination(len(known), page_size)})


@router.post("", status_code=201, response_model=models.MemoryResponse)
async def create_memory(request: Request, body: models.NewMemory) -> Response:
    """Begin a memory that the key is valid for. It may exist already."""
    known = _known(request)
    if known is not None and body.name not in known:
        raise ProblemError(
            403, "OtherMemory", "this key is not valid for this memory: create one, by dynamiq-memory keys create"
        )
    return JSONResponse({"data": _described(body.name)}, 201)


@router.get("/{memory_id}", response_model=models.MemoryDescription)
async def describe_memory(access: RequestAccess) -> Response:
    """Describe the service, the store's capabilities and the limits. Clients recognise the service by this response."""
    capabilities, settings = access.memory.capabilities, access.service.settings
    limits = {name: getattr(settings, name) for name in models.RequestLimits.model_fields}
    return JSONResponse(
        {
            "data": _described(access.memory_id),
            "service": "dynamiq-memory",
            "version": dynamiq_memory.__version__,
            "memory_id": access.memory_id,
            "user_id": access.memory.user_id,
            "capabilities": asdict(capabilities),
            "limits": limits,
        }
    )


@router.delete("/{memory_id}", response_model=models.DeleteResponse)
async def empty_memory(access: RequestAccess) -> Response:
    """Delete all messages of the memory that the key may access. The id and the keys remain valid."""
    deleted = await access.memory.aclear()
    access.service.metrics.deleted.inc(deleted)
    return JSONResponse({"deleted": deleted})


@router.delete("/{memory_id}/users/{user_id:text}", response_model=models.ReceiptResponse)
async def forget_user(
    access: RequestAccess,
    user_id: Annotated[str, Path(min_length=1, description="The user.")],
    dry_run: Annotated[bool, Query(description="Only count what there is.")] = False,
) -> Response:
    """Delete all that the memory holds of a user, and look whether it is gone. The receipt says what is left."""
    access.memory.check_user(user_id)
    receipt = await Memory(access.memory).aforget_user(user_id, dry_run=dry_run)
    access.service.metrics.deleted.inc(receipt.deleted)
    (erasure,) = receipt.stores
    if erasure.error is not None:
        raise erasure.error
    return JSONResponse(receipt.to_dict())


def _known(request: Request) -> list[str] | None:
    """Return the memories that the request may access; None for any."""
    key: APIKey | None = request.scope["state"].get("key")
    service: Service = request.app.state.service
    only = service.settings.memory_id
    if only is not None:
        return [only] if key is None or only in key.memory_ids else []
    return None if key is None else list(key.memory_ids)


def _described(memory_id: str) -> dict[str, Any]:
    return models.MemoryItem(id=memory_id, name=memory_id).model_dump()
