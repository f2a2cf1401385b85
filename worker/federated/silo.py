"""A silo's part: round after round, local steps on its private file from the factors that all begin at, and one noised
message. What it costs was reserved when it accepted; a round's steps are paid for before they run."""

import time
from dataclasses import dataclass

from obstore.exceptions import NotFoundError

from domain.federated import rounds
from domain.federated.rounds import Membership, NewestRound
from domain.kit.statuses import ENDED
from domain.storage.blobs import get_bytes, put_bytes, require_room
from domain.storage.sealing import Tampered
from dpcore.checkpoint import PlanMismatch, read_step
from dpcore.federated import message
from dpcore.federated.silo import Silo
from dpcore.machine.micro_batches import out_of_memory
from dpcore.mechanism.keystream import Streams
from dpcore.terms.methods.federated_lora import Options
from dpcore.terms.program import Program
from ledger import work
from ledger.errors import LedgerError, RoundClosed
from worker import checkpoints, ends
from worker.assignment import Assignment, read_assignment
from worker.build import Built, build
from worker.errors import DataPhaseFailed, Refused, Unavailable
from worker.federated.ending import end_part
from worker.federated.masks import SiloMasks
from worker.federated.waiting import POLL, hint
from worker.log import log
from worker.training import Training, does_not_fit, needs_services, why_not


@dataclass(frozen=True)
class Prepared:
    """What all rounds of an attempt share."""

    member: Membership
    built: Built
    program: Program
    options: Options
    silo: Silo
    streams: Streams
    masks: SiloMasks | None


class SiloTraining(Training):
    """One attempt at a silo's job, once the lease is held: as many rounds as there are while it holds it."""

    stays_closed = -1  # the round whose masks this attempt does not open

    def run(self) -> bool:
        """True when the silo's part is over, False when this worker must let go of it."""
        self.spans.phase("build")
        with self.engine.connect() as connection, needs_services():
            member = rounds.membership(connection, self.lease.job_id)
            if member is None:
                return self.let_wait()
            assignment = read_assignment(connection, self.store, self.lease.job_id)
        if member.status in ENDED:
            return self._end(member)
        part = self._prepare(assignment, member)
        while True:
            found = self.others(lambda: self._look(part))
            if found is None:
                return self.let_wait()
            if isinstance(found, Membership):
                return self._end(found)
            assert isinstance(found, NewestRound)
            ended = self._round(part, found)
            if ended is not None:
                return ended

    def _prepare(self, assignment: Assignment, member: Membership) -> Prepared:
        """Built, encoded and rehearsed for every kind of round, before anything is paid."""
        built = build(self.settings, assignment)
        self.spans.phase("encode")
        records, owners = self.records(assignment, built)
        self.spans.phase("rehearse")
        program = assignment.program
        options = Options.model_validate(program.options)
        try:
            silo = Silo(
                member.name,
                model=built.model,
                task=built.task,
                records=records,
                program=program,
                options=options,
                owners=owners,
                should_stop=self.should_stop,
            )
        except Exception as error:
            # On public stand-ins only.
            if out_of_memory(error):
                raise does_not_fit() from error
            raise Refused("not_trainable", why_not(error)) from error
        self.spans.phase("train")
        self.room = _message_bytes(built)
        masks = SiloMasks.of(self, member) if options.masked else None
        return Prepared(member, built, program, options, silo, Streams(), masks)

    def _look(self, part: Prepared) -> NewestRound | Membership | None:
        """A round to be done, or one whose masks are to be opened, or the end of the federated job."""
        with needs_services(), self.engine.connect() as connection:
            now = rounds.membership(connection, self.lease.job_id)
            if now is None or now.status in ENDED:
                return now
            found = rounds.newest(connection, part.member.parent_id)
            if found is None or found.closed:
                return None
            sent = rounds.begun(connection, self.lease.job_id, found.number).sent
        if found.agreed is not None:
            asked = part.masks is not None and found.number != self.stays_closed and part.masks.asked(found)
            return found if asked else None
        masked_out = found.silos is not None and part.member.name not in found.silos
        return None if sent or masked_out else found

    def _round(self, part: Prepared, now: NewestRound) -> bool | None:
        """One round. True when the silo's part is over with it, False when the worker must let go, None otherwise."""
        if now.agreed is not None and part.masks is not None:
            done = part.masks.go_on(now, part.silo.expected(part.member.parent_id, now.number, now.sha256))
            if done == "refused":
                self.stays_closed = now.number  # and not asked again in this attempt
            last = now.number == part.options.rounds - 1
            return self._end(part.member) if done == "opened" and last else None
        start = self._start(now)
        if start is None or not _begins_well(part, start, now):
            log.error("job %s: the factors of round %d are not this job's", self.lease.job_id, now.number)
            return self.let_wait()
        kept = self._kept(part, now.number)
        fence = self._paid(part, now.number, kept)
        if fence is None:  # attempts that died have used up what was reserved
            return self._end(part.member)
        made = self._train_round(part, start, kept)
        if not isinstance(made, message.Message):
            self.require_wanted()
            self.require_time()
            return False
        data = message.dumps(made) if part.masks is None else part.masks.mask(now, made)
        if data is None:
            return self.let_wait()
        if not self._send(part, now.number, fence, data):
            return None
        if now.number == part.options.rounds - 1 and part.masks is None:
            return self._end(part.member)
        return None

    def _start(self, now: NewestRound) -> bytes | None:
        """What the round begins at; None where there is nothing, or not what was stored."""
        with needs_services():
            try:
                return get_bytes(self.store, now.blob)
            except (FileNotFoundError, NotFoundError, Tampered):
                return None

    def _kept(self, part: Prepared, number: int) -> bytes | None:
        """What an earlier attempt at this round saved."""
        with needs_services():
            found = checkpoints.newest(self.engine, self.store, self.lease.job_id)
        first = number * part.options.steps_each
        if found is None or not first < read_step(found) <= first + part.options.steps_each:
            return None
        return found

    def _paid(self, part: Prepared, number: int, kept: bytes | None) -> int | None:
        """The fence under which the round is begun, its steps authorised and committed; None when none are left.

        Steps are authorised for several rounds at a time, so that progress is seen in at most 20 chunks. A round that
        an earlier attempt ended is not begun again; one that it broke off costs the steps that are left once more.
        """
        each, done = part.options.steps_each, number * part.options.steps_each
        wanted = each if kept is None else done + each - read_step(kept)
        with needs_services():
            require_room(self.store, self.room)
        with needs_services(), self.engine.begin() as connection:
            authorised = ends.steps_authorised(connection, self.lease.job_id)
            before = rounds.begun(connection, self.lease.job_id, number)
            if wanted == 0:
                return before.unsent[-1]
            if authorised - before.steps < wanted:
                ahead = -(-max(part.program.chunk, wanted) // each) * each
                granted = work.authorise(connection, self.lease, 0, ahead)
                authorised += granted
                if granted:
                    self.tell_authorised(connection, part.program, 0)
            if authorised - before.steps < wanted:
                return None
            rounds.begin(connection, self.lease, number, wanted)
        self.begun = True
        return self.lease.fence

    def _train_round(self, part: Prepared, start: bytes, kept: bytes | None) -> object:
        try:
            return part.silo.round(
                part.member.parent_id,
                start,
                authorise=lambda steps: steps,  # paid for as a whole when the round was begun
                save=self.save,
                streams=part.streams,
                checkpoint=kept,
            )
        except (LedgerError, Unavailable):
            raise
        except Exception as error:
            if out_of_memory(error):
                raise Unavailable from error
            raise DataPhaseFailed from error

    def _send(self, part: Prepared, number: int, fence: int, data: bytes) -> bool:
        """Put the message where the coordinator finds it, at a public time. False when the round is over by then."""
        parent = part.member.parent_id
        self._await_public_time(parent, number, part.options.round_seconds)
        blob = f"exchange/{parent}/{number}/{part.member.name}-{self.lease.fence}.safetensors"
        with needs_services():
            put_bytes(self.store, blob, data)
        try:
            with needs_services(), self.engine.begin() as connection:
                rounds.send(connection, self.lease, number, fence, blob, message.sha256(data))
                complete = rounds.complete(connection, parent)
        except RoundClosed:
            log.warning("job %s: the message of round %d came too late", self.lease.job_id, number)
            return False
        if complete:
            hint(self.settings, parent)
        return True

    def _await_public_time(self, parent_id: str, number: int, every: float) -> None:
        """Until a whole multiple of the round's seconds has passed since it was opened, by the database's clock, or
        the round is over."""
        with needs_services(), self.engine.connect() as connection:
            now = rounds.newest(connection, parent_id)
        if now is None or now.number != number or now.closed:
            return
        until = time.monotonic() + (every - now.seconds % every)
        with self.heartbeat.waiting():
            while (left := until - time.monotonic()) > 0:
                self.require_going()
                time.sleep(min(left, POLL))

    def _end(self, member: Membership) -> bool:
        """Settle what was authorised, and let the coordinator know."""
        with self.engine.begin() as connection:
            end_part(connection, self.lease.job_id, self.lease.fence)
        hint(self.settings, member.parent_id)
        self.spans.finish()
        return True


def _begins_well(part: Prepared, start: bytes, now: NewestRound) -> bool:
    """Whether the factors are what the round says, and of this job's model. They come from whoever runs the
    coordinator: what is wrong with them is no failure of this silo's, and found before anything is paid."""
    if message.sha256(start) != now.sha256:
        return False
    try:
        return part.silo.begin(part.member.parent_id, start)[1] == now.number
    except PlanMismatch:
        return False


def _message_bytes(built: Built) -> int:
    """Of a message and a checkpoint, about."""
    return 8 * sum(p.numel() * 4 for p in built.model.parameters() if p.requires_grad)
