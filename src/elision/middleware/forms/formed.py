"""An engine that speaks text over one that has scores: replies of a form, read into messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elision.contract import Capability, Delta, Engine, Lexicon, Plan, Recipe, in_order, text_of
from elision.errors import RequestError
from elision.middleware.fields import UNSUPPORTED
from elision.middleware.forms.dialects import Dialect, dialect_for
from elision.middleware.forms.form import FREE, Form, form_of
from elision.middleware.forms.grammar import parameters_of, source_of
from elision.middleware.forms.reading import read
from elision.middleware.forms.unredacted import unredacted
from elision.middleware.interventions.grammar.check import check
from elision.middleware.interventions.grammar.compiled import Compiler
from elision.middleware.interventions.grammar.limits import too_deep
from elision.middleware.interventions.grammar.pruning import Hides, pruned
from elision.middleware.interventions.grammar.recipe import Grammar
from elision.middleware.interventions.grammar.source import of_schema
from elision.middleware.interventions.grammar.unescaped import in_json

if TYPE_CHECKING:
    from elision.contract import Request
    from elision.middleware.profiles import Profile


def _nothing(text: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Formation:
    """How one reply is held to its form and read.

    Attributes:
        form: What was asked for.
        dialect: How the model writes.
        is_thinking: Whether the reply begins within a thought.
        source: Its grammar, once it is held to one; None: any text.
    """

    form: Form
    dialect: Dialect
    is_thinking: bool = False
    source: str | None = None

    @classmethod
    def of(cls, request: Request, engine: Engine) -> Formation | None:
        """Return how the reply to *request* is read; None if it is text as it is written.

        Raises:
            RequestError: If what is said of the form is malformed.
        """
        form, dialect = form_of(request), dialect_for(engine)
        if request.kind != "chat" or request.answer is not None:
            return None
        is_free = form.is_free and not (form.tools and dialect.marker)
        if is_free and (dialect.think is None or request.options.get("trace")):
            return None
        return cls(form=form, dialect=dialect, is_thinking=_is_thinking(request, dialect))

    @property
    def is_json(self) -> bool:
        """Whether the reply is JSON and nothing else: a backslash always begins an escape."""
        return self.form.schema is not None or self.form.calls == "must"

    def held(self, lexicon: Lexicon, hides: Hides = _nothing) -> Formation:
        """Return the same with its grammar, compiled; takes a while: not for the event loop.

        Args:
            lexicon: The engine's.
            hides: Says which texts must not leave: choices that hold one are not offered.

        Raises:
            RequestError: Naming the schema that cannot be used.
        """
        try:
            return replace(self, form=_pruned(self.form, hides))._compiled(lexicon)
        except RecursionError:
            raise too_deep() from None  # its traceback would go through the schema

    def _compiled(self, lexicon: Lexicon) -> Formation:
        source = None
        try:
            source = source_of(self.form, self.dialect, is_thinking=self.is_thinking)
        except RequestError:
            self._check_each(lexicon)
            raise
        if source is not None and not Compiler.of(lexicon).knows(source):
            self._check_each(lexicon)
            check(source, lexicon, param="tools" if self.form.tools else "response_format")
        return replace(self, source=source)

    def _check_each(self, lexicon: Lexicon) -> None:
        """Raise for the first schema that cannot be used, by its name."""
        if self.form.schema is not None:
            _check(self.form.schema, lexicon, "response_format")
        for n, tool in enumerate(self.form.tools):
            if tool in self.form.callable:
                _check(parameters_of(tool), lexicon, f"tools[{n}].function.parameters")


def _pruned(form: Form, hides: Hides) -> Form:
    tools = tuple(replace(one, parameters=pruned(one.parameters, hides)) for one in form.tools)
    return replace(form, schema=pruned(form.schema, hides), tools=tools)


def _check(schema: Mapping[str, Any], lexicon: Lexicon, param: str) -> None:
    try:
        source = of_schema(schema)
    except RequestError as exc:
        raise RequestError(str(exc), param=param, code=exc.code) from None
    check(source, lexicon, param=param, keeps=False)


class Formed:
    """Speaks messages: content, thoughts and calls of what an engine writes. Lives for one request.

    Args:
        engine: Decodes; it stays the caller's.
        formation: See `Formation`.
        capabilities: What may be asked of it: by default nothing, a reply is not continued.

    Attributes:
        name: The engine's.
        capabilities: See above.
        lexicon: None.
    """

    def __init__(
        self,
        engine: Engine,
        formation: Formation,
        *,
        capabilities: Capability = Capability.NONE,
    ) -> None:
        self.name = engine.name
        self.capabilities = capabilities
        self.lexicon: Lexicon | None = None
        self._engine = engine
        self._formation = formation

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """Yield the reply to *plan*, whose recipes act on the engine's scores."""
        formation, request = self._formation, plan.request
        tells = request.logprobs is not None
        if formation.dialect.think is not None and not tells:
            request = replace(request, logprobs=0)  # they count the tokens of thoughts
        recipes = await asyncio.to_thread(self._recipes, plan)
        inner = replace(plan, request=request, recipes=recipes, refusal="")
        deltas = read(
            self._engine.stream(inner),
            formation.form,
            formation.dialect,
            is_thinking=formation.is_thinking,
            refusal=plan.refusal,
            tells=tells,
        )
        async with aclosing(deltas) as source:
            async for delta in source:
                yield delta

    def _recipes(self, plan: Plan) -> tuple[Recipe, ...]:
        acting = in_json(plan.recipes) if self._formation.is_json else plan.recipes
        kept = [*map(unredacted, acting)]
        if self._formation.source is not None:
            kept.append(Grammar(self._formation.source))
        return in_order(kept)

    async def aclose(self) -> None:
        """Do nothing."""


def aloud(engine: Engine) -> Engine:
    """Return *engine* for agents: of a model that thinks, what it says behind its thoughts."""
    dialect = dialect_for(engine)
    if dialect.think is None:
        return engine
    formation = Formation(form=FREE, dialect=dialect, is_thinking=dialect.opens_thought)
    return Formed(engine, formation, capabilities=engine.capabilities)


def check_forms(engine: Engine, plan: Plan, profile: Profile) -> None:
    """Raise if *plan* asks for what a reply that has a form cannot tell, or be searched by.

    Raises:
        RequestError: Naming it.
    """
    if plan.trace:
        raise RequestError(
            "a reply that has a form is not traced; leave elision.trace out, or the form",
            param="elision",
            code=UNSUPPORTED,
        )
    if profile.decoder == "beam":
        raise RequestError(
            f"the profile {profile.name} searches beams on {engine.name!r}, which hold to no form; "
            "choose another profile, such as guarded",
            param="model",
            code=UNSUPPORTED,
        )


def _is_thinking(request: Request, dialect: Dialect) -> bool:
    """Return whether the reply to *request* begins within a thought."""
    if dialect.think is None:
        return False
    if not request.continue_final:
        return dialect.opens_thought
    begin, end = dialect.think
    before = text_of(request.messages[-1])
    return before.rfind(begin) > before.rfind(end)
