"""Finds in an app's source what it uses of Flower. Nothing is run: names are followed by imports.

What a program computes cannot be told from its text: a strategy that is looked up by name at run
time is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.training.app_bundle import FlowerApp
from fl_runtime.server.rounds.strategies import WEIGHTED_MEANS

_WEIGHTED = {kind.__name__ for kind in WEIGHTED_MEANS}
_METRIC_FUNCTIONS = {"train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"}
_WRITES = {"write_text", "write_bytes", "savefig", "to_csv", "to_json", "to_parquet", "savez"}
_WRITERS = {"torch.save", "numpy.save", "numpy.savez", "json.dump", "joblib.dump"}
_NAMED = {
    "DefaultWorkflow": "workflow",
    "LegacyContext": "workflow",
    "SecAggWorkflow": "secure-aggregation",
    "SecAggPlusWorkflow": "secure-aggregation",
    "secagg_mod": "secure-aggregation",
    "secaggplus_mod": "secure-aggregation",
    "fixedclipping_mod": "privacy",
    "adaptiveclipping_mod": "privacy",
    "LocalDpMod": "privacy",
}


START = "start"
"""Marks the call of a strategy's ``start``, which is no feature by itself."""
SEVERAL_STARTS = "several-starts"


@dataclass(frozen=True, order=True)
class Use:
    """A feature, and where the app uses it first."""

    feature: str
    """A key of :data:`fl_runtime.server.apps.features.FEATURES`, or START."""
    what: str
    """The app's or Flower's name for it."""
    file: str
    line: int


@dataclass
class _Module:
    """One source file of an app."""

    file: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)
    """What each imported name stands for, dotted."""

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.names[alias.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.names[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"

    def dotted(self, node: ast.expr) -> str:
        """What an expression names, dotted; empty when it is not a name."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            inside = self.dotted(node.value)
            return f"{inside}.{node.attr}" if inside else ""
        return ""


def uses_of(files: Iterable[Path], root: Path) -> list[Use]:
    """The features that an app's Python files use, each where it comes first."""
    modules = [_parsed(file, root) for file in files if file.suffix == ".py"]
    known = [module for module in modules if module is not None]
    own = _own_strategies(known)
    first: dict[tuple[str, str], Use] = {}
    for module in known:
        for use in sorted(_uses(module, own), key=lambda use: use.line):
            first.setdefault((use.feature, use.what), use)
    return _with_several_starts(sorted(first.values()), known)


def starts_several_times(app: FlowerApp) -> bool:
    """Whether an app's source calls a strategy's ``start`` in more than one place."""
    return any(use.feature == SEVERAL_STARTS for use in uses_of(app.files(), app.folder))


def _parsed(file: Path, root: Path) -> _Module | None:
    try:
        return _Module(file.relative_to(root).as_posix(), ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # a file that the app does not import may be anything


def _own_strategies(modules: Iterable[_Module]) -> dict[str, ast.ClassDef]:
    """Classes of the app that are strategies, by name; also those derived from such."""
    classes = {
        node.name: (module, node)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    found: dict[str, ast.ClassDef] = {}
    for _ in classes:  # as often as a chain of classes can be long
        for name, (module, node) in classes.items():
            bases = [module.dotted(base) for base in node.bases]
            if any(_is_strategy(base) or base.rpartition(".")[2] in found for base in bases):
                found[name] = node
    return found


def _is_strategy(name: str) -> bool:
    return name.startswith("flwr.") and ".strategy." in name


def _uses(module: _Module, own: Mapping[str, ast.ClassDef]) -> Iterator[Use]:
    inside = _lines_of_strategies(module, own)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and own.get(node.name) is node:
            yield Use("own-strategy", node.name, module.file, node.lineno)
            if any(
                isinstance(part, ast.FunctionDef) and part.name == "start" for part in node.body
            ):
                yield Use("own-start", node.name, module.file, node.lineno)
        elif isinstance(node, ast.Call):
            for feature, what in _of_call(module, node, in_strategy=node.lineno in inside):
                yield Use(feature, what, module.file, node.lineno)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = module.dotted(node)
            last = name.rpartition(".")[2]
            if name.startswith("flwr.") and last in _NAMED:
                yield Use(_NAMED[last], last, module.file, node.lineno)
            elif (
                isinstance(node, ast.Attribute) and node.attr == "state" and _is_context(node.value)
            ):
                yield Use("state", "context.state", module.file, node.lineno)


def _of_call(module: _Module, node: ast.Call, *, in_strategy: bool) -> Iterator[tuple[str, str]]:
    """Features of one call, each with its name."""
    name = module.dotted(node.func)
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    last = name.rpartition(".")[2]
    given = {word.arg: word.value for word in node.keywords if word.arg}
    if name.startswith("flwr.serverapp.strategy."):
        yield _strategy_feature(last), last
    if _METRIC_FUNCTIONS & given.keys():
        yield "own-metrics", ", ".join(sorted(_METRIC_FUNCTIONS & given.keys()))
    fraction = given.get("fraction_evaluate")
    if isinstance(fraction, ast.Constant) and fraction.value == 0:
        yield "no-evaluation", "fraction_evaluate=0"
    if last == "Array" and "stype" in given:
        yield "custom-arrays", "Array(stype=...)"
    if _starts(node):
        yield START, "start"
        if "evaluate_fn" in given:
            yield "central-evaluation", "evaluate_fn"
        if isinstance(given.get("num_rounds"), ast.Constant):
            yield "fixed-rounds", "num_rounds"
    if method in ("push_messages", "pull_messages"):
        yield "push-and-pull", method
    if method in ("send_and_receive", "push_messages") and not in_strategy:
        yield "own-loop", method
    if method == "lifespan":
        yield "lifespan", "lifespan"
    if isinstance(given.get("mods"), ast.expr):
        yield "mods", "mods"
    if method in _WRITES or name in _WRITERS or (name == "open" and _opens_to_write(node)):
        yield "files", last or method


def _strategy_feature(name: str) -> str:
    if name.startswith("DifferentialPrivacy"):
        return "privacy"
    if name.startswith("FedXgb"):
        return "trees"
    return "weighted-mean" if name in _WEIGHTED else "every-update"


def _starts(node: ast.Call) -> bool:
    """Whether a call is of a strategy's ``start``; so is that of a thread, without a grid."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr != "start":
        return False
    first = node.args[0] if node.args else None
    named = {word.arg for word in node.keywords}
    return "grid" in named or (isinstance(first, ast.Name) and first.id == "grid")


def _with_several_starts(uses: list[Use], modules: Iterable[_Module]) -> list[Use]:
    starts = [
        (module.file, node.lineno)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _starts(node)
    ]
    if len(starts) < 2:
        return uses
    file, line = sorted(starts)[1]
    return sorted([*uses, Use(SEVERAL_STARTS, "start", file, line)])


def _lines_of_strategies(module: _Module, own: Mapping[str, ast.ClassDef]) -> set[int]:
    nodes = [node for node in ast.walk(module.tree) if node in own.values()]
    return {
        line
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _is_context(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("context", "ctx", "ctxt")


def _opens_to_write(node: ast.Call) -> bool:
    modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and set("wax") & set(mode.value)
        for mode in modes
    )
