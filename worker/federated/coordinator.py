"""A federated job's own part: it sends out what each round begins at, takes the weighted mean of the messages that
come, and publishes what is left after the last one. It opens no row, and needs no right to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from obstore.exceptions import NotFoundError
from torch import Tensor

from domain.federated import masks, rounds
from domain.federated.rounds import NewestRound, Promised, Working
from domain.jobs.events import append_event
from domain.storage.blobs import open_blob, put_bytes
from domain.storage.sealing import Tampered
from dpcore.federated import message, server
from dpcore.federated.message import Message, RefusedMessage
from dpcore.federated.secure.keys import usable
from dpcore.federated.server import State, TooFewSilos
from dpcore.federated.silo import factors, put
from dpcore.terms.federated.silo import longest_message
from dpcore.terms.methods.federated_lora import Options
from dpcore.terms.program import CHUNKS, Program
from worker import checkpoints
from worker.assignment import Assignment, read_assignment
from worker.build import Built, build
from worker.errors import Refused
from worker.federated.sums import Sums
from worker.federated.waiting import hint
from worker.log import log
from worker.training import Training, data_phase, needs_services

TOO_FEW = Refused("too_few_silos", "Fewer silos than a round needs are left: the others have left the job.")
NO_ROUND = Refused("too_few_silos", "In no round enough silos' messages came in time: nothing was learnt.")


@dataclass(frozen=True)
class Course:
    """What all rounds share."""

    options: Options
    members: Sequence[Promised]

    @property
    def sizes(self) -> dict[str, int]:
        """Declared, by silo."""
        return {member.name: member.declared_size for member in self.members}

    def bounds(self, state: State) -> dict[str, float | None]:
        """The length of each silo's message of this round at most."""
        trained = [v for n, v in state.factors.items() if self.options.trains(n, state.round)]
        numbers = sum(value.numel() for value in trained)
        return {
            member.name: longest_message(
                Program.model_validate(member.plan),
                self.options,
                declared_size=member.declared_size,
                numbers=numbers,
                round=state.round,
            )
            for member in self.members
        }


class Coordinator(Training):
    """One attempt at a federated job, once the lease is held."""

    def run(self) -> bool:
        """True when the job is finished, False when this worker must let go of it."""
        self.spans.phase("build")
        with self.engine.connect() as connection, needs_services():
            assignment = read_assignment(connection, self.store, self.lease.job_id)
            members = rounds.members(connection, self.lease.job_id)
        plan = Course(Options.model_validate(assignment.program.options), members)
        built = build(self.settings, assignment)
        before = self.untrained(assignment, built)
        state = self._state(built)
        self.spans.phase("train")
        while state.round < plan.options.rounds:
            now = self._closed(plan, state)
            if now is None:
                return self.let_wait()
            state = self._next(plan, state, now)
        with needs_services(), self.engine.connect() as connection:
            if not rounds.any_counted(connection, self.lease.job_id, plan.options.least):
                raise NO_ROUND
        self.heartbeat.lift_limit()
        put(built.model, state.factors)
        self.spans.phase("publish")
        with data_phase():
            self._publish(assignment, built, before)
        self.spans.finish()
        return True

    def _state(self, built: Built) -> State:
        """Where the rounds stand; kept before the first one, so that nothing of them is lost later."""
        with needs_services():
            kept = checkpoints.newest(self.engine, self.store, self.lease.job_id)
        if kept is not None:
            return server.loads(kept)
        state = server.begin(self.lease.job_id, factors(built.model))
        self._keep(state)
        return state

    def _keep(self, state: State) -> None:
        with needs_services():
            checkpoints.save(self.engine, self.store, self.lease, state.round, server.dumps(state))

    def _closed(self, plan: Course, state: State) -> NewestRound | None:
        """The round of this state, opened if it is not, waited for, and closed. None when the worker is needed
        elsewhere meanwhile."""
        self.require_going()
        with needs_services(), self.engine.connect() as connection:
            now = rounds.newest(connection, self.lease.job_id)
            here = rounds.taking_part(connection, self.lease.job_id)
        if len(here) < plan.options.least and (now is None or now.number < state.round):
            raise TOO_FEW
        if now is None or now.number < state.round:
            if plan.options.masked:
                keyed = self.others(lambda: self._keyed(plan))
                if keyed is None:
                    return None
                here = keyed
            self._open(plan, state, [silo.name for silo in here] if plan.options.masked else None)
            for silo in here:
                hint(self.settings, silo.job_id, silo.place)
        if now is not None and now.number == state.round and now.closed:
            return now
        came = self._came_masked(plan, state) if plan.options.masked else self._came(plan, state)
        if came is None:
            return None
        with needs_services(), self.engine.begin() as connection:
            rounds.close_round(connection, self.lease, state.round, came)
            self._tell(connection, plan, state.round, came)
        return self._newest()

    def _newest(self) -> NewestRound:
        """The round that is there."""
        with needs_services(), self.engine.connect() as connection:
            now = rounds.newest(connection, self.lease.job_id)
        assert now is not None
        return now

    def _keyed(self, plan: Course) -> list[Working] | None:
        """The silos that can mask their messages, once all of those that take part can, or enough of them and nobody
        waits longer for the others."""
        with needs_services(), self.engine.connect() as connection:
            here = rounds.taking_part(connection, self.lease.job_id)
            patient = rounds.waited(connection, self.lease.job_id) < plan.options.patience_seconds
            said = masks.keys(connection, self.lease.job_id)
        fit = usable(said)
        keyed, silent = [s for s in here if s.name in fit], [s for s in here if s.name not in said]
        if len(keyed) + len(silent) < plan.options.least:
            raise TOO_FEW
        if silent and (patient or len(keyed) < plan.options.least):
            return None
        return keyed

    def _came(self, plan: Course, state: State) -> list[str] | None:
        """The silos whose messages count, once no more are waited for."""
        if self.others(lambda: self._ready(state.round)) is None:
            return None
        return sorted(self._messages(plan, state))

    def _came_masked(self, plan: Course, state: State) -> list[str] | None:
        """The same behind masks: nobody's counts, where those who are in have not all opened theirs."""
        expected = server.expected(state, plan.options, plan.bounds(state))
        if self._newest().agreed is None:
            if self.others(lambda: self._ready(state.round)) is None:
                return None
            came = self._sums(plan).agree(self._newest(), expected, plan.options.least)
            if len(came) < plan.options.least:
                return came
        if self.others(lambda: self._ready(state.round)) is None:
            return None
        now = self._newest()
        return [] if self._sums(plan).mean(now, expected, state) is None else sorted(now.agreed or ())

    def _sums(self, plan: Course) -> Sums:
        return Sums(self, plan.sizes, self._fetched)

    def _open(self, plan: Course, state: State, silos: list[str] | None) -> None:
        start = server.start(state)
        blob = f"exchange/{self.lease.job_id}/{state.round}/start-{self.lease.fence}.safetensors"
        with needs_services():
            put_bytes(self.store, blob, start)
        with needs_services(), self.engine.begin() as connection:
            patience = plan.options.patience_seconds
            rounds.open_round(connection, self.lease, state.round, blob, message.sha256(start), patience, silos)

    def _ready(self, number: int) -> bool | None:
        """Whether the round can be closed: all have sent, or it is overdue."""
        with needs_services(), self.engine.connect() as connection:
            now = rounds.newest(connection, self.lease.job_id)
            if now is None or now.number != number:
                return None
            return True if now.closed or now.overdue or rounds.complete(connection, self.lease.job_id) else None

    def _messages(self, plan: Course, state: State, among: Sequence[str] | None = None) -> dict[str, Message]:
        """What came of this round and counts. among: the silos that it was closed with."""
        expected = server.expected(state, plan.options, plan.bounds(state))
        came: dict[str, Message] = {}
        with needs_services(), self.engine.connect() as connection:
            sent = rounds.messages(connection, self.lease.job_id, state.round)
        for each in sent:
            if among is not None and each.silo not in among:
                continue
            try:
                with needs_services():
                    data = self._fetched(each.blob, expected.most_bytes)
                if data is None or message.sha256(data) != each.sha256:
                    raise RefusedMessage("the message is not what the silo said it sent")
                found = message.loads(data, expected, came)
                if found.silo != each.silo:
                    raise RefusedMessage("the message is of another silo")
            except RefusedMessage as refused:
                log.error("job %s: round %d, %s: %s", self.lease.job_id, state.round, each.silo, refused)
                continue
            came[each.silo] = found
        return came

    def _fetched(self, blob: str, most: int) -> bytes | None:
        """None where there is no such blob. Raises RefusedMessage for one that is too large for a message, unread."""
        try:
            found = open_blob(self.store, blob)
            if found.size > most:
                raise RefusedMessage(f"the message has {found.size} bytes, and a round's message at most {most}")
            return found.whole()
        except (FileNotFoundError, NotFoundError, Tampered):
            return None

    def _next(self, plan: Course, state: State, closed: NewestRound) -> State:
        """The state after a closed round, kept. One of too few messages changes nothing."""
        try:
            if plan.options.masked:
                state = server.advance(state, plan.options, self._mean(plan, state, closed))
            else:
                came = self._messages(plan, state, closed.came)
                state = server.aggregate(state, plan.options, came, plan.sizes)
        except TooFewSilos as few:
            log.warning("job %s: round %d changes nothing: %s", self.lease.job_id, state.round, few)
            state = server.aborted(state)
        self._keep(state)
        return state

    def _mean(self, plan: Course, state: State, closed: NewestRound) -> Mapping[str, Tensor]:
        """Of a round behind masks. Raises TooFewSilos where there is none."""
        if closed.agreed is None or len(closed.came) < plan.options.least:
            raise TooFewSilos(f"{len(closed.came)} of at least {plan.options.least} silos' messages are in the sum")
        mean = self._sums(plan).mean(closed, server.expected(state, plan.options, plan.bounds(state)), state)
        if mean is None:
            raise TooFewSilos("the sum is not opened")
        return mean

    def _tell(self, connection: sa.Connection, plan: Course, number: int, came: Sequence[str]) -> None:
        """In at most 20 parts of the rounds, as every job tells its progress."""
        total = plan.options.rounds
        every = -(-total // CHUNKS)
        if (number + 1) % every and number + 1 < total:
            return
        words = f"Round {number + 1} of {total}: {len(came)} of {len(plan.members)} silos' messages count."
        data = {"round": number + 1, "rounds": total, "came": len(came), "silos": len(plan.members)}
        append_event(connection, self.lease.job_id, "round.closed", words, data)

    def report(
        self, connection: sa.Connection, assignment: Assignment, built: Built, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        """The own silo's report, and what was promised to the others: all of it public among those who take part."""
        counted = rounds.times_counted(connection, self.lease.job_id)
        promised = ("unit", "epsilon", "delta", "noise_multiplier", "sample_rate")
        silos = [
            {
                "name": member.name,
                "own": member.tenant_id == assignment.tenant_id,
                "declared_size": member.declared_size,
                "rounds_counted": counted.get(member.name, 0),
                **{name: member.privacy[name] for name in promised},
            }
            for member in rounds.members(connection, self.lease.job_id)
        ]
        masked = Options.model_validate(assignment.program.options).masked
        return super().report(connection, assignment, built, metrics) | {"silos": silos, "masked": masked}
