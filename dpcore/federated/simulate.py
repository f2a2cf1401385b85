"""All silos and the server in one process: for tests and benchmarks. Whoever runs it sees all files, so that nothing
here separates them; the messages are those of a real run, byte for byte."""

from collections.abc import Callable, Collection, Mapping

from dpcore.federated import masked, message, server
from dpcore.federated.message import Message
from dpcore.federated.secure.keys import SiloKeys
from dpcore.federated.server import State, TooFewSilos
from dpcore.federated.silo import Silo
from dpcore.mechanism.keystream import Streams
from dpcore.terms.federated.options import Options

Travels = Callable[[int, str, bytes], bytes | None]
"""What becomes of a message: travels(round, silo, data); None: it is lost."""


def simulate(
    state: State,
    options: Options,
    silos: Collection[Silo],
    sizes: Mapping[str, int],
    *,
    streams: Mapping[str, Streams],
    bounds: Mapping[str, float | None] | None = None,
    travels: Travels = lambda round, silo, data: data,
    keep: Callable[[State], None] = lambda state: None,
) -> State:
    """From the state to the end of the last round. sizes: declared, by silo; streams: of each silo, all rounds.
    bounds: as `server.expected` takes them. keep(state): after every round. With `options.masked` the server adds up
    what it cannot read."""
    keys = {name: SiloKeys() for name in sizes}
    while state.round < options.rounds:
        wanted = server.expected(state, options, bounds or dict.fromkeys(sizes))
        came: dict[str, Message] = {}
        for silo in silos:
            made = silo.round(
                state.job,
                server.start(state),
                authorise=lambda steps: steps,
                save=lambda data: None,
                streams=streams[silo.name],
            )
            data = travels(state.round, silo.name, message.dumps(made)) if isinstance(made, Message) else None
            if data is not None:
                came[silo.name] = message.loads(data, wanted, came)
        try:
            if options.masked:
                state = server.advance(state, options, masked.mean(state, wanted, came, sizes, keys, options.least))
            else:
                state = server.aggregate(state, options, came, sizes)
        except TooFewSilos:
            state = server.aborted(state)
        keep(state)
    return state
