"""From files and overrides to one mapping: Hydra decides what is read and in which order, and nothing more.

Hydra's defaults-list algorithm and override grammar run on a repository of our own, so that composing needs
no GlobalHydra, no plugins and no resolvers: it works in threads and inside another Hydra application, and
leaves nothing behind. Files are read by `source_map`, which remembers where every key came from; the last
file that sets a key gives its position.

Order, later wins: shipped defaults < the study's own file < groups chosen by an override < keys overridden.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import version as hydra_version
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offtake.errors import InputError, Mistake
from offtake.layering import Composition, did_you_mean
from offtake.overriding import apply_override, resolve_references
from offtake.source_map import COMMAND_LINE, Document, KeyPath, read_yaml

RUN_OPTIONS = frozenset({"announced", "out", "report", "force"})
"""Top-level keys that say how to run, beside the study."""

_hydra_lock = threading.RLock()


class _Repository(ConfigRepository):
    """Hydra's view of the configuration folders, read by our own loader."""

    def __init__(self, folders: Sequence[Any]) -> None:
        self.folders = folders
        self.sources = []  # Hydra lists its own sources in some messages; ours are the folders
        self.documents: dict[str, Document] = {}

    def _file(self, config_path: str) -> Any:
        parts = [part for part in config_path.split("/") if part]
        if not parts or ".." in parts:
            return None
        parts[-1] = parts[-1].removesuffix(".yaml") + ".yaml"
        candidates = (folder.joinpath(*parts) for folder in self.folders)
        return next((file for file in candidates if file.is_file()), None)

    def load_config(self, config_path: str) -> ConfigResult | None:
        file = self._file(config_path)
        if file is None:
            return None
        document = self.documents.get(config_path)
        if document is None:
            document = self.documents[config_path] = read_yaml(file, may_be_empty=True)
        data = document.data or {}
        # Hydra needs the defaults list, and whether there is anything else.
        content = {"defaults": _without_hydra(data.get("defaults") or []), "content": True}
        if not data.keys() - {"defaults"}:
            del content["content"]
        result = ConfigResult("offtake", document.shown, OmegaConf.create(content), dict(document.header))
        raw = self._extract_defaults_list(config_path, result.config)
        result.defaults_list = self._create_defaults_list(config_path, raw)
        return result

    def group_exists(self, config_path: str) -> bool:
        parts = [part for part in config_path.split("/") if part]
        # The deal and layer of a dotted key are no folders; a name with a dot is never a group.
        return ".." not in parts and any(folder.joinpath(*parts).is_dir() for folder in self.folders)

    def config_exists(self, config_path: str) -> bool:
        return self._file(config_path) is not None

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        groups = [folder.joinpath(*group_name.split("/")) for folder in self.folders]
        files = [file.name for group in groups if group.is_dir() for file in group.iterdir()]
        return sorted({name.removesuffix(".yaml") for name in files if name.endswith(".yaml")})


def _without_hydra(defaults: Any) -> Any:
    """A defaults list without choices of Hydra's own groups, which concern how it runs, not the study."""
    if not isinstance(defaults, list):
        return defaults
    return [item for item in defaults if not (isinstance(item, dict) and "hydra/" in "".join(item))]


def _folders(config_dir: str | Path | None) -> list[Any]:
    folders: list[Any] = [importlib.resources.files("offtake.conf")]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise InputError([Mistake(COMMAND_LINE, "--config-dir", f"no such folder: {config_dir}")])
        folders.append(Path(config_dir))
    return folders


@contextlib.contextmanager
def _hydra_rules() -> Iterator[None]:
    """Hydra's defaults-list rules read one process-wide setting: ours meanwhile, the host's afterwards."""
    with _hydra_lock:
        setting = hydra_version.VersionBase.instance()
        before = setting.getbase()
        hydra_version.setbase("1.3")
        ours = setting.getbase()
        try:
            yield
        finally:
            # Unless another thread has set its own since.
            if setting.getbase() is ours:
                setting.version_base = before


def portfolio_names(config_dir: str | Path | None = None) -> list[str]:
    """The portfolios that `load` knows by name, shipped ones and those of `config_dir`."""
    return _Repository(_folders(config_dir)).get_group_options("portfolio")


def compose_named(
    name: str | None, overrides: Sequence[str], config_dir: str | Path | None = None
) -> Composition:
    """Compose the shipped configuration with a portfolio of that name (None: the default one)."""
    composition = Composition(COMMAND_LINE)
    chosen = [] if name is None else [f"portfolio={name}"]
    _compose(composition, "config", [*chosen, *overrides], _folders(config_dir), None)
    return composition


def compose_whole(
    document: Document, overrides: Sequence[str], config_dir: str | Path | None = None
) -> Composition:
    """Compose a study that is kept in one file, or given as a mapping, over the shipped defaults."""
    composition = Composition(document.shown, mistakes=list(document.mistakes))
    if document.data is None:
        return composition
    for key in RUN_OPTIONS & document.data.keys():
        where = document.marks[key,].key
        composition.mistakes.append(Mistake(where, key, "belongs on the command line, not in a study"))
    if any(re.match(r"portfolio=[^{]", text) for text in overrides):
        message, hint = "a study in one file brings its own portfolio", "override its keys instead"
        composition.mistakes.append(Mistake(COMMAND_LINE, "portfolio", message, hint))
        return composition
    _compose(composition, "whole_file", overrides, _folders(config_dir), document)
    return composition


def for_hydra(overrides: Sequence[str], config_dir: str | Path | None = None) -> list[str]:
    """Overrides for Hydra's own machinery, which refuses a key that a file leaves to its default.

    A plain `key=value` becomes `++key=value`; unknown keys are found by validation, with better advice.
    """
    repository = _Repository(_folders(config_dir))
    composition = Composition(COMMAND_LINE)
    rewritten = []
    with _hydra_rules():
        for text in overrides:
            override = _parse_override(composition, text)
            if override is None:
                continue
            group = override.key_or_group
            if override.type == OverrideType.CHANGE and not override.is_hydra_override():
                if not repository.group_exists(group):
                    text = f"++{text}"
                elif repository.config_exists(f"{group}/null"):
                    # `device=null` is the null device; to Hydra it would be no device at all.
                    value = re.sub(r"(?<![^,])null(?![^,])", "'null'", override.get_value_string())
                    text = f"{override.get_key_element()}={value}"
            rewritten.append(text)
    if composition.mistakes:
        raise InputError(composition.mistakes)
    return rewritten


def _compose(
    composition: Composition,
    primary: str,
    overrides: Sequence[str],
    folders: Sequence[Any],
    whole: Document | None,
) -> None:
    repository = _Repository(folders)
    before = len(composition.mistakes)
    with _hydra_rules():
        parsed = _parse_overrides(composition, repository, overrides)
        if len(composition.mistakes) > before:
            return
        try:
            defaults = create_defaults_list(
                repository, primary, parsed, prepend_hydra=False, skip_missing=False
            )
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            message = re.split(r"\n(?:To append to your default list|Config search path)", str(error))[
                0
            ].strip()
            composition.mistakes += _files_mistakes(repository) or [_not_composed(message, repository)]
            return
    composition.mistakes += _files_mistakes(repository)
    if any(document.data is None for document in repository.documents.values()):
        return
    _add_files(composition, repository, defaults, whole)
    for override in defaults.config_overrides:
        apply_override(composition, override)
    resolve_references(composition)


def _not_composed(message: str, repository: _Repository) -> Mistake:
    """What Hydra's rules for choices find wrong, and what to do about it."""
    if unknown := re.match(r"Could not override '([^']*)'", message):
        return Mistake(
            COMMAND_LINE, unknown[1], "is not chosen in this portfolio", f"+{unknown[1]}=… adds it"
        )
    if twice := re.match(r"Multiple values for ([^.]*)\. To override", message):
        return Mistake(COMMAND_LINE, twice[1], "is chosen already", f"{twice[1]}=… chooses another")
    if missing := re.match(r"In '([^']*)': Could not (?:find|load) '(?:([^']*)/)?([^'/]*)'", message):
        return _not_found(repository, *missing.groups())
    return Mistake(COMMAND_LINE, "", message)


def _not_found(repository: _Repository, config: str, group: str | None, name: str) -> Mistake:
    """A choice in a file's defaults list that is nowhere."""
    options = repository.get_group_options(group or "")
    hint = did_you_mean(name, options) or f"there are: {', '.join(options)}"
    document = repository.documents.get(config)
    location = COMMAND_LINE
    if document is not None:
        chosen = [item if isinstance(item, dict) else {"": item} for item in document.data["defaults"]]
        places = [place for place, item in enumerate(chosen) if name in map(str, item.values())]
        path: KeyPath = ("defaults", *places[:1])
        location = document.marks[path].key
    return Mistake(location, "defaults", f"no {group or 'file'} is named '{name}'", hint)


def _files_mistakes(repository: _Repository) -> list[Mistake]:
    return [mistake for document in repository.documents.values() for mistake in document.mistakes]


def _parse_overrides(
    composition: Composition, repository: _Repository, overrides: Sequence[str]
) -> list[Override]:
    parsed = []
    for text in overrides:
        override = _parse_override(composition, text)
        if override is None:
            continue
        if override.is_sweep_override():
            composition.mistakes.append(
                Mistake(
                    COMMAND_LINE,
                    override.key_or_group,
                    "several values at once",
                    "a list is [a, b], a sweep needs -m",
                )
            )
        elif not override.is_hydra_override():
            parsed.append(_group_choice(composition, repository, override))
    return parsed


def _parse_override(composition: Composition, text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        key = text.partition("=")[0]
        hint = f"a value that is more than a plain word has quotes of its own: '{key}=\"…\"'"
        composition.mistakes.append(
            Mistake(COMMAND_LINE, "", f"cannot read override {text[:80]!r}: {reason}", hint)
        )
        return None


def _group_choice(composition: Composition, repository: _Repository, override: Override) -> Override:
    """A choice of group must name a file; `device=null` means the null device, not nothing."""
    group, value = override.key_or_group, override.value()
    if override.is_delete() or isinstance(value, dict) or not repository.group_exists(group):
        return override
    if value is None:
        if repository.config_exists(f"{group}/null"):
            override._value = QuotedString(text="null", quote=Quote.single)
        else:
            hint = f"{group}=[] chooses none" if group == "stress" else ""
            composition.mistakes.append(Mistake(COMMAND_LINE, group, "must be a name, not null", hint))
        return override
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or not repository.config_exists(f"{group}/{name}"):
            options = repository.get_group_options(group)
            hint = did_you_mean(str(name), options) or f"there are: {', '.join(options)}"
            composition.mistakes.append(
                Mistake(COMMAND_LINE, group, f"no {group.rpartition('/')[2]} is named {str(name)!r}", hint)
            )
    return override


def _add_files(
    composition: Composition, repository: _Repository, defaults: DefaultsList, whole: Document | None
) -> None:
    chosen = {key for key, meta in defaults.overrides.override_metadata.items() if meta.external_override}
    chosen |= {default.get_override_key() for default in defaults.overrides.append_group_defaults}
    layers = [default for default in defaults.defaults if default.config_path is not None]
    if whole is not None:
        layers = (
            [layer for layer in layers if layer.override_key not in chosen]
            + [None]
            + [layer for layer in layers if layer.override_key in chosen]
        )
    for layer in layers:
        if layer is None:
            assert whole is not None
            composition.add_document(whole)
            continue
        document = repository.documents[str(layer.config_path)]
        for reserved in ("defaults", "hydra"):
            document.data.pop(reserved, None)
        composition.add_document(document, tuple(layer.package.split(".")) if layer.package else ())
