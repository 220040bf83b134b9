"""Messages of the Open Inference Protocol: their schemas, and the translation to and from /predict/batch."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, FailFast, Field

from app.api.edge.bodies import Body, invalid
from app.api.inference import tensors
from app.api.routes.batch_body import BATCH
from app.api.schemas import MAX_BATCH, Batch, Prediction
from app.interface import EXAMPLE, ROWS_NOUN, Request
from app.model.prediction import Predictions

INPUTS = tensors.tensors_of(Request)
OUTPUTS = {name: tensor for name, tensor in tensors.tensors_of(Prediction).items() if not tensor.json}
MAX_TENSORS = 1000

Size = Annotated[int, Field(strict=True, ge=0)]
Unsupported = Annotated[None, Field(description="Not supported.")]

_EXAMPLE: dict[str, Any] = {"inputs": tensors.example(INPUTS, EXAMPLE)}


class InputParameters(BaseModel):
    """Parameters of an input tensor; others are ignored."""

    binary_data_size: Size | None = Field(default=None, description="Bytes of the tensor after the JSON.")
    shared_memory_region: Unsupported = None


class InputTensor(BaseModel):
    """An input tensor, with its elements in `data` or after the JSON."""

    name: str = Field(description="Name of a field of the request.")
    shape: Annotated[list[Size], FailFast()] = Field(min_length=1, max_length=2, description="[n] or [n, 1].")
    datatype: str = Field(description="As in the model's metadata.")
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="The elements, flat or nested as the shape.")


class OutputParameters(BaseModel):
    """Parameters of a requested output; others are ignored."""

    binary_data: bool | None = Field(default=None, strict=True, description="Whether the tensor follows the JSON.")
    classification: Unsupported = None
    shared_memory_region: Unsupported = None


class RequestedOutput(BaseModel):
    """An output tensor that the response is to have."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """Parameters of a request; others are ignored."""

    binary_data_output: bool = Field(default=False, strict=True, description="Default of `binary_data`.")


class InferenceRequest(BaseModel):
    """Requests as tensors: one for each field, which may be absent if the field is optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    inputs: Annotated[list[InputTensor], FailFast()] = Field(min_length=1, max_length=MAX_TENSORS)
    outputs: Annotated[list[RequestedOutput], FailFast()] = Field(
        default=[], max_length=MAX_TENSORS, description="If empty, all."
    )
    id: str | None = Field(default=None, description="Returned in the response.")
    parameters: RequestParameters = RequestParameters()

    def chosen(self) -> dict[str, bool]:
        """Return the names of the outputs, and whether each follows the JSON."""
        binary = self.parameters.binary_data_output
        if not self.outputs:
            return dict.fromkeys(OUTPUTS, binary)
        given = {output.name: output.parameters.binary_data for output in self.outputs}
        return {name: binary if own is None else own for name, own in given.items()}


class OutputTensor(BaseModel):
    """An output tensor, with its elements in `data` or after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[Literal["binary_data_size"], int] | None = Field(
        default=None, description="The bytes of a tensor that follows the JSON."
    )
    data: list[Any] | None = None


class InferenceResponse(BaseModel):
    """The predictions for the rows of the inputs, in their order."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[Literal["bundle_digest"], str] = Field(description="SHA-256 of the bundle's manifest.")
    outputs: list[OutputTensor]


_REQUEST = Body(InferenceRequest)


def read(head: bytes, binary: bytes) -> tuple[InferenceRequest, list[Request]]:
    """Return a request, and its rows as /predict/batch reads them.

    Raises `Invalid`, and HTTPException for what cannot be parsed.
    """
    request: InferenceRequest = _REQUEST.parse(head)
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in OUTPUTS or names.count(name) > 1:
            raise invalid("outputs", f"each must be one of {', '.join(OUTPUTS)}, once")
    try:
        batch: Batch = BATCH.validated({ROWS_NOUN: _rows(request.inputs, binary)})
    except RecursionError:
        raise HTTPException(400, "The JSON is nested too deeply.") from None
    return request, batch.rows


def _rows(inputs: list[InputTensor], binary: bytes) -> list[dict[str, Any]]:
    count = _count(inputs)
    announced = sum(item.parameters.binary_data_size or 0 for item in inputs)
    if announced != len(binary):
        detail = f"The body has {len(binary)} bytes after its JSON, and the tensors' binary_data_size is {announced}."
        raise HTTPException(400, f"{detail} Inference-Header-Content-Length is the length of the JSON.")
    columns, start = {}, 0
    for item in inputs:
        tensor, size = INPUTS[item.name], item.parameters.binary_data_size
        if (size is None) == (item.data is None):
            raise tensor.invalid("must have either data or binary_data_size")
        end = start + (size or 0)
        columns[item.name] = tensor.values(
            _flat(item, count) if size is None else tensor.decode(binary[start:end], count)
        )
        start = end
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _count(inputs: list[InputTensor]) -> int:
    """Return the number of rows; raise `Invalid` unless each tensor is known, of its type and there once."""
    names, count = [item.name for item in inputs], inputs[0].shape[0]
    for item in inputs:
        tensor = INPUTS.get(item.name)
        if tensor is None:
            raise invalid(item.name, f"the model has no such input; it has {', '.join(INPUTS)}")
        if names.count(item.name) > 1:
            raise tensor.invalid("the tensor is given more than once")
        if item.datatype != tensor.datatype:
            raise tensor.invalid(f"the datatype must be {tensor.datatype}")
        if item.shape not in ([count], [count, 1]):
            raise tensor.invalid(f"the shape must be [{count}] or [{count}, 1], as {inputs[0].name} has {count} rows")
    for tensor in INPUTS.values():
        if tensor.required and tensor.name not in names:
            raise tensor.invalid("Field required")
    if not 1 <= count <= MAX_BATCH:
        raise invalid("inputs", f"the tensors must have 1 to {MAX_BATCH} rows, not {count}")
    return count


def _flat(item: InputTensor, count: int) -> list[Any]:
    data = item.data or []
    if len(item.shape) == 2:
        data = [part[0] if isinstance(part, list) and len(part) == 1 else part for part in data]
    if len(data) != count:
        raise INPUTS[item.name].invalid(f"data has {len(data)} elements, not {count}")
    return data


def answer(request: InferenceRequest, predictions: Predictions) -> tuple[bytes, bytes]:
    """Return the JSON of a response, and the tensors after it: the fields of the response of /predict/batch."""
    rows, served = predictions.contents(), predictions.served
    outputs, parts = [], []
    for name, binary in request.chosen().items():
        tensor, values = OUTPUTS[name], [row[name] for row in rows]
        output: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": [len(rows)]}
        if binary:
            parts.append(tensor.encode(values))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    message = {"model_name": served.name, "model_version": served.version}
    message |= {} if request.id is None else {"id": request.id}
    parameters = {"bundle_digest": served.bundle.digest}
    return json.dumps(message | {"parameters": parameters, "outputs": outputs}).encode(), b"".join(parts)
