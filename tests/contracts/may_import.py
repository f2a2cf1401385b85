"""A contract for import-linter by what a room may import: whatever its list does not name is refused.

It looks at direct imports. What comes with them is the list of the room that they are of.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class MayImport(Contract):
    """`source`: a package. `modules`: what it may import beside itself and the standard library; a package with all that
    is in it. In TOML:

        type = "may_import"
        source = "ledger"
        modules = ["sqlalchemy", "dpcore.terms"]
    """

    type_name = "may_import"

    source = fields.StringField()
    modules = fields.SetField(subfield=fields.StringField())

    @property
    def _modules(self) -> set[str]:
        return {str(module) for module in self.modules}  # type: ignore[attr-defined]  # a field becomes its value

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        source = str(self.source)
        if source not in graph.modules:
            raise ValueError(f"'{source}', the source of '{self.name}', is no package of this project")
        if str(self.session_options.get("include_external_packages")).lower() != "true":
            raise ValueError(f"'{self.name}' needs include_external_packages = true")
        allowed = {source, *self._modules} | sys.stdlib_module_names
        refused = [
            place
            for importer in sorted({source, *graph.find_descendants(source)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not any(imported == module or imported.startswith(f"{module}.") for module in allowed)
            for place in _places(graph, importer, imported)
        ]
        return ContractCheck(kept=not refused, metadata={"refused": refused})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for place, imported in check.metadata["refused"]:
            output.print_error(f"{place}: {self.source} may not import {imported}", bold=False)
        output.new_line()
        output.print_error(f"It may import {', '.join(sorted(self._modules))} and the standard library.", bold=False)
        output.new_line()


def _places(graph: ImportGraph, importer: str, imported: str) -> Iterator[tuple[str, str]]:
    details = graph.get_import_details(importer=importer, imported=imported)
    for line in sorted({detail["line_number"] or 0 for detail in details}):
        yield f"{_file(importer)}:{line}", imported


def _file(module: str) -> str:
    """Of a module, as seen from the top of the project, where import-linter runs."""
    path = Path(*module.split("."))
    return str(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
