"""Parameter groups of devices and channels: read by ConfigDownload, set one by one by DeviceConfig."""

import dataclasses
from typing import Any, Final

from pydantic import RootModel, model_validator

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.gb import parameters, schema
from gbgw.gb.parameters import GROUPS, Parameters
from gbgw.serve.api.commands import target_of
from gbgw.serve.api.shapes import CAMERA, FORCE, forced
from gbgw.serve.openapi import Call, Query, Route

TYPES: Final = Query(
    "types", "string", "groups joined by /, such as BasicParam/VideoParamOpt; all that its edition has by default"
)


class ConfigInput(RootModel[Parameters]):
    """The groups to change; those absent or null stay as they are."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        _check(Parameters, data, "")
        return data


def _check(record: Any, data: Any, where: str) -> None:
    """Refuse unknown names, and texts and lists beyond what the standard or a device takes. Types are pydantic's."""
    if not isinstance(data, dict):
        return
    columns = {column.name: column for column in schema.columns(record)}
    for name, value in data.items():
        column = columns.get(name)
        if column is None:
            raise ValueError(f"{where}{name} is no such field")
        values = value if isinstance(value, list) else [value]
        if column.repeats and len(values) > column.most:
            raise ValueError(f"{where}{name} has more than {column.most} items")
        for each in values:
            if isinstance(each, str) and len(each) > limits.ANSWER_TEXT:
                raise ValueError(f"{where}{name} is too long")
            if dataclasses.is_dataclass(column.kind):
                _check(column.kind, each, f"{where}{name}.")


async def get_config(call: Call) -> Any:
    device_id, target = target_of(call)
    text = call.request.query.get("types", "")[:512]
    groups = [parameters.group_of(name) for name in text.split("/") if name.strip()]
    found = await call.serving.cameras.configuration(
        device_id, target, list(dict.fromkeys(groups)), forced=forced(call)
    )
    return Parameters(**found)


async def get_channel_config(call: Call) -> Any:
    return await get_config(call)


async def change_config(call: Call) -> None:
    device_id, target = target_of(call)
    given = parameters.given(call.body.root)
    if not given:
        raise RequestError("No group to change.", code="bad_body", remedy="/api/docs shows the fields.")
    if any(group.field == "snap_shot_config" for group, _ in given):
        raise RequestError("Snapshots have an address of their own.", code="bad_body", remedy="POST .../snapshot")
    for group, value in given:
        await call.serving.cameras.configure(device_id, target, group, value, forced=forced(call))


async def change_channel_config(call: Call) -> None:
    await change_config(call)


def _routes() -> tuple[Route, ...]:
    rows: list[Route] = []
    for path, whose, read, change in (
        ("/devices/{id}/config", "a device", get_config, change_config),
        ("/devices/{id}/channels/{cid}/config", "a channel", get_channel_config, change_channel_config),
    ):
        summary = f"Parameters of {whose}; groups it did not tell are null"
        rows.append(Route("GET", path, read, summary, "view", Parameters, query=(TYPES, FORCE), errors=CAMERA))
        summary = f"Change parameters of {whose}, one message a group; not atomic"
        rows.append(
            Route(
                "PATCH",
                path,
                change,
                summary,
                "control",
                body=ConfigInput,
                query=(FORCE,),
                errors=CAMERA,
                audit="config",
            )
        )
    return tuple(rows)


ROUTES: Final[tuple[Route, ...]] = _routes()
assert {group.field for group in GROUPS} == {field.name for field in dataclasses.fields(Parameters)}
