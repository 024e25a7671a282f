"""Commands and small queries to devices: sent, answered where the standard has an answer, with a cause code where not.

Leaves out: catalogs and device information (`interview.py`), invitations (`session.py`).
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from gbgw.base.errors import PeerError, RequestError
from gbgw.base.tally import Tally
from gbgw.gb import answers, control, manscdp, parameters, schema
from gbgw.gb.control import Command
from gbgw.gb.manscdp import Document, Edition, Field, Result
from gbgw.gb.parameters import Group
from gbgw.questions import Question, Questions

GAP_SECONDS: Final = 2.0  # between the parts of one configuration


class Commands:
    """Commands and asks the devices of one gateway."""

    def __init__(self, questions: Questions, tally: Tally) -> None:
        self._questions = questions
        self._tally = tally

    def edition(self, device_id: str) -> Edition:
        return self._questions.edition(device_id)

    def reachable(self, device_id: str) -> None:
        """Raise PeerError `device_offline`."""
        self._questions.reachable(device_id)

    async def command(self, device_id: str, target: str, command: Command, *, forced: bool = False) -> None:
        """Have a device obey; return when it said so, which most commands leave to the 200 of the MESSAGE.

        target: the device or one of its channels. forced: also if its edition has no such command. Raises PeerError
        `device_offline`, `query_refused`, `query_no_answer`, `command_failed`; RequestError `edition_unsupported`.
        """
        self._check(device_id, command.since, command.name, forced=forced)
        edition = self.edition(device_id)
        async with self._questions.ask(device_id, "DeviceControl", target) as question:
            await question.send(command.body(question.sn, target, edition), command.name)
            if command.answered:
                self._obeyed(await self._answer(question), command.name)
        self._tally.add("command.sent")

    async def configure(
        self, device_id: str, target: str, group: Group, value: object, *, forced: bool = False
    ) -> None:
        """Set one parameter group. Raises as `command` does, and RequestError `config_read_only`."""
        if not group.settable:
            raise RequestError(
                f"{group.name} can only be read", status=409, code="config_read_only", remedy="leave it out"
            )
        self._check(device_id, group.since, group.name, forced=forced)
        async with self._questions.ask(device_id, "DeviceConfig", target) as question:
            body = control.configuration(question.sn, target, group, value, self.edition(device_id))
            await question.send(body, group.name)
            self._obeyed(await self._answer(question), group.name)
        self._tally.add("command.sent")

    async def configuration(
        self, device_id: str, target: str, groups: Sequence[Group], *, forced: bool = False
    ) -> dict[str, Any]:
        """Read parameter groups: fields of Parameters -> values. Groups that did not come are absent.

        The answer may have a part for each group; a part may be called otherwise than it was asked for (Uniview), so
        that a sole one counts by its SN.
        """
        for group in groups:
            self._check(device_id, group.since, group.name, forced=forced)
        asked: list[Field] = [("ConfigType", "/".join(group.name for group in groups))]
        wanted = {group.field for group in groups}
        found: dict[str, Any] = {}
        async with self._questions.ask(device_id, "ConfigDownload", target) as question:
            body = manscdp.query("ConfigDownload", question.sn, target, self.edition(device_id), asked)
            await question.send(body, "ConfigDownload")
            part = await self._answer(question)
            while True:
                found |= _groups_of(part, groups)
                if wanted <= set(found):
                    return found
                try:
                    async with asyncio.timeout(GAP_SECONDS):
                        part = await question.answers.get()
                except TimeoutError:
                    break
        if not found:
            self._failed(device_id, part, "ConfigDownload")
            raise PeerError(
                f"device {device_id} answered ConfigDownload without a parameter that was asked for",
                code="answer_unusable",
                remedy="ask for other groups; the device does not know these",
            )
        return found

    async def ask(
        self,
        device_id: str,
        target: str,
        cmd_type: str,
        record: type[schema.R],
        *,
        fields: Iterable[Field] = (),
        since: Edition = "2.0",
        forced: bool = False,
    ) -> schema.R:
        """Put a query of one answer and return it as `record`."""
        return answers.read(record, (await self.document(device_id, target, cmd_type, fields, since, forced)).element)

    async def document(
        self,
        device_id: str,
        target: str,
        cmd_type: str,
        fields: Iterable[Field] = (),
        since: Edition = "2.0",
        forced: bool = False,
    ) -> Document:
        """Put a query of one answer. Raises as `command` does, `query_failed` where the device says Result ERROR."""
        self._check(device_id, since, cmd_type, forced=forced)
        async with self._questions.ask(device_id, cmd_type, target) as question:
            await question.send(manscdp.query(cmd_type, question.sn, target, self.edition(device_id), fields), cmd_type)
            document = await self._answer(question)
        self._failed(device_id, document, cmd_type)
        return document

    async def _answer(self, question: Question) -> Document:
        """Wait for the answer about our target; one about somebody else is counted and not taken for it."""
        other = ""
        while True:
            try:
                document = await question.answer()
            except PeerError as error:
                if not other or error.code != "query_no_answer":
                    raise
                raise PeerError(
                    f"device {question.device_id} answered {question.cmd_type} for {other[:40]} instead of "
                    f"{question.target}",
                    code="answer_for_another",
                    remedy="check the channel ids set in the device",
                ) from None
            if document.device_id in ("", question.target, question.device_id):
                return document
            other = document.device_id
            self._tally.add("question.answer_for_another", detail=question.device_id)

    def _obeyed(self, document: Document, what: str) -> None:
        if not (isinstance(document.payload, Result) and document.payload.ok):
            raise PeerError(
                f"the device answered {what} with Result ERROR",
                code="command_failed",
                remedy="the device cannot do it now, or not with these values",
            )

    def _failed(self, device_id: str, document: Document, what: str) -> None:
        if document.element.get("Result").upper() in ("ERROR", "FAIL", "FAILED", "0"):
            raise PeerError(
                f"device {device_id} answered {what} with Result ERROR",
                code="query_failed",
                remedy="the device cannot tell; see whether its channel is in order",
            )

    def _check(self, device_id: str, since: Edition, what: str, *, forced: bool) -> None:
        """Raise RequestError for what the device's edition does not have (statement 7)."""
        self._questions.reachable(device_id)
        edition = self.edition(device_id)
        if since > edition and not forced:
            raise RequestError(
                f"{what} came with edition {since} of GB/T 28181, this device says it speaks {edition}",
                status=409,
                code="edition_unsupported",
                remedy="add ?force=1 to send it all the same",
            )


def _groups_of(part: Document, groups: Sequence[Group]) -> dict[str, Any]:
    """Return what of `groups` a part holds."""
    fields = {group.field for group in groups}
    found = {name: value for name, value in parameters.read(part.element).items() if name in fields}
    if found or len(groups) != 1 or groups[0].record is int:
        return found
    unnamed = [child for child in part.element.children if child.children]
    if len(unnamed) != 1:
        return {}
    return {groups[0].field: schema.read(groups[0].record, unnamed[0])}
