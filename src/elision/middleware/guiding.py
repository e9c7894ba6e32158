"""The guidance of one request: its own and its profile's, on the engine that is to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elision.contract import Context, Recipe, Request, Session, Stage
from elision.errors import CapabilityError, ConfigError, RequestError
from elision.middleware.carrying import carrier, lacking
from elision.middleware.guidance import PATH, guidance_of

if TYPE_CHECKING:
    from elision.contract import Engine
    from elision.middleware.profiles import Profile


def guidance_for(request: Request, profile: Profile, engine: Engine) -> tuple[Recipe, ...]:
    """Return the recipes by which *request* is guided: the profile's, or its own in their place.

    Raises:
        RequestError: As in `guidance_of`; or if the profile guards by a prompt.
        CapabilityError: If the engine, or the profile's decoder, has no scores to guide by.
    """
    own = request.options.get("guidance")
    found = guidance_of(own, profile.guidance)
    for method, recipe in found.items():
        asked = method in (own or {})
        told = f"{PATH}.{method}" if asked else f"{method} of the profile {profile.name}"
        param = f"{PATH}.{method}" if asked else "model"
        _check_engine(told, recipe, profile, engine, param=param)
        if profile.guardrail is not None:  # another prompt would lack it, or tell what is in it
            raise RequestError(f"{told} does not go with a guardrail prompt", param=param)
    if carrier(engine) is not None:  # opened in another process, so carried as they are
        return tuple(found.values())
    return tuple(AsAsked(recipe, method, engine.name) for method, recipe in found.items())


@dataclass(frozen=True, slots=True)
class AsAsked:
    """A recipe of a request: what it finds wrong when it is opened is told as the request's fault.

    Attributes:
        inner: The recipe.
        method: What the request calls it.
        engine: Name of the engine.
    """

    inner: Recipe
    method: str
    engine: str

    @property
    def stage(self) -> Stage:
        """The recipe's."""
        return self.inner.stage

    @property
    def rank(self) -> int:
        """The recipe's."""
        return self.inner.rank

    def begin(self, context: Context) -> Session:
        """Open the recipe's session.

        Raises:
            CapabilityError: If this reply's decoding has no branches.
            RequestError: If the request has no such other prompt, or the engine no such assistant.
        """
        param = f"{PATH}.{self.method}"
        try:
            return self.inner.begin(context)
        except CapabilityError as exc:
            missing = exc.missing
            raise CapabilityError(param, engine=self.engine, missing=missing, param=param) from exc
        except (RequestError, ConfigError) as exc:
            raise RequestError(f"{param!r}: {exc}", param=param, code=exc.code) from exc


def _check_engine(
    method: str, recipe: Recipe, profile: Profile, engine: Engine, *, param: str
) -> None:
    if (missing := lacking(engine, recipe)) is not None:
        raise CapabilityError(method, engine=engine.name, missing=str(missing.name), param=param)
    if profile.decoder == "beam":
        name = f"{engine.name} by beam search"
        raise CapabilityError(method, engine=name, missing="BRANCH", param=param)
