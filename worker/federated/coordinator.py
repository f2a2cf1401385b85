"""A federated job's own part: it sends out what each round begins at, takes the weighted mean of the messages that
come, and publishes what is left after the last one. It opens no row, and needs no right to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from obstore.exceptions import NotFoundError

from domain.federated import rounds
from domain.federated.rounds import NewestRound, Promised
from domain.jobs.events import append_event
from domain.storage.blobs import open_blob, put_bytes
from domain.storage.sealing import Tampered
from dpcore.federated import message, server
from dpcore.federated.message import Message, RefusedMessage
from dpcore.federated.server import State, TooFewSilos
from dpcore.federated.silo import factors, put
from dpcore.terms.federated.silo import longest_message
from dpcore.terms.methods.federated_lora import Options
from dpcore.terms.program import CHUNKS, Program
from ledger import work
from worker import checkpoints
from worker.assignment import Assignment, read_assignment
from worker.build import Built, build
from worker.drain import draining
from worker.errors import Refused, Unavailable
from worker.federated.waiting import hint, wait_for
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
                with needs_services(), self.engine.begin() as connection:
                    work.excuse_waiting(connection, self.lease)
                return False
            state = self._next(plan, state, now)
        with needs_services(), self.engine.connect() as connection:
            if not rounds.any_counted(connection, self.lease.job_id, plan.options.least_silos):
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
        self._require_going()
        with needs_services(), self.engine.connect() as connection:
            now = rounds.newest(connection, self.lease.job_id)
            here = rounds.taking_part(connection, self.lease.job_id)
        if len(here) < plan.options.least_silos and (now is None or now.number < state.round):
            raise TOO_FEW
        if now is None or now.number < state.round:
            self._open(plan, state)
            for silo in here:
                hint(self.settings, silo.job_id, silo.place)
        if now is not None and now.number == state.round and now.closed:
            return now
        ready = wait_for(self.settings, lambda: self._ready(state.round), self._require_going)
        if ready is None:
            return None
        came = sorted(self._messages(plan, state))
        with needs_services(), self.engine.begin() as connection:
            rounds.close_round(connection, self.lease, state.round, came)
            self._tell(connection, plan, state.round, came)
        with needs_services(), self.engine.connect() as connection:
            return rounds.newest(connection, self.lease.job_id)

    def _open(self, plan: Course, state: State) -> None:
        start = server.start(state)
        blob = f"exchange/{self.lease.job_id}/{state.round}/start-{self.lease.fence}.safetensors"
        with needs_services():
            put_bytes(self.store, blob, start)
        with needs_services(), self.engine.begin() as connection:
            patience = plan.options.patience_seconds
            rounds.open_round(connection, self.lease, state.round, blob, message.sha256(start), patience)

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
        came: Mapping[str, Message] = self._messages(plan, state, closed.came)
        try:
            state = server.aggregate(state, plan.options, came, plan.sizes)
        except TooFewSilos as few:
            log.warning("job %s: round %d changes nothing: %s", self.lease.job_id, state.round, few)
            state = server.aborted(state)
        self._keep(state)
        return state

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
        return super().report(connection, assignment, built, metrics) | {"silos": silos}

    def _require_going(self) -> None:
        self.require_wanted()
        self.require_time()
        if draining():
            raise Unavailable("this worker was told to end")
