"""Dependencies of the routes that need the model."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from app.model.served import ServedModel


def served_model(request: Request) -> ServedModel:
    """Return the model for this request; raise 503 while no model is loaded."""
    served: ServedModel | None = request.app.state.served
    if served is None:
        raise HTTPException(503, request.app.state.reason)
    return served


Served = Annotated[ServedModel, Depends(served_model)]


def ready_model(request: Request, served: Served) -> ServedModel:
    """Return the model; raise 503 while none is loaded or the service is shutting down."""
    if request.app.state.draining:
        raise HTTPException(503, "The service is shutting down.")
    return served


ReadyModel = Annotated[ServedModel, Depends(ready_model)]
