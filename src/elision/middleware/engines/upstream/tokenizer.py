"""An upstream's tokenizer: found by name, and shown to be the one."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from elision.catalog import Folder, HubId, resolve
from elision.errors import ConfigError
from elision.middleware.models.pull import pull, pulled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from elision.settings import Settings

PROBE: Final = "Étude no. 1234,  naïve\tcafés: 東京 🙂 don't\n\n    x_1 += 0x7F;"
"""What every family of tokenizers splits in its own way: digits, spaces, scripts, bytes."""


class Upstream(Protocol):
    """What a loop asks of an engine; see `RemoteEngine`."""

    name: str

    async def next_scores(self, ids: Sequence[int], k: int) -> Sequence[tuple[int, float]]:
        """Return the *k* likeliest tokens behind *ids* with their log-probabilities."""
        ...

    async def tokens_of(self, text: str) -> tuple[int, ...] | None:
        """Return how the upstream splits *text*; None if it does not tell."""
        ...

    def leave(self) -> Awaitable[None]:
        """Close what was opened on the running event loop."""
        ...


async def check_tokenizer(engine: Upstream, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise if *tokenizer* splits a probe text otherwise than *engine*.

    Args:
        engine: The upstream.
        tokenizer: What is called *name*.
        name: For the error.

    Raises:
        ConfigError: If it does, or the upstream does not tell how it splits.
    """
    theirs, ours = await engine.tokens_of(PROBE), split(tokenizer, PROBE)
    if theirs is None:
        raise ConfigError(
            f"{engine.name!r} does not tell how it splits text, so {name!r} cannot be shown to be "
            "its tokenizer; leave upstream_tokenizer out"
        )
    begun = tuple(cast("list[int]", tokenizer(PROBE)["input_ids"]))
    if theirs not in (ours, begun):
        raise ConfigError(
            f"{name!r} is not the tokenizer of {engine.name!r}: of a probe text it makes "
            f"{len(ours)} tokens, the upstream {len(theirs)}, and they differ; set "
            "upstream_tokenizer to the upstream's own"
        )


def split(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return *text* as tokens, without any that only begin or end a sequence."""
    return tuple(cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"]))


def load_tokenizer(
    name: str, settings: Settings
) -> tuple[PreTrainedTokenizerBase, tuple[int, ...]]:
    """Return the tokenizer called *name*, and which tokens its model ends a reply with.

    Args:
        name: Alias, hub id or folder. Of a hub id nothing else is fetched, of a folder nothing
            else needs to lie there.
        settings: Where pulled models live.

    Raises:
        ConfigError: If it cannot be loaded.
        NotFoundError: If there is none of that name.
    """
    from transformers import AutoTokenizer, GenerationConfig

    source = _source(name, settings)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{name!r} is no tokenizer that can be loaded") from exc
    try:
        ends: Any = GenerationConfig.from_pretrained(source).eos_token_id
    except OSError:  # a tokenizer without its model's settings
        ends = None
    listed: list[Any] = ends if isinstance(ends, list) else [ends]
    return tokenizer, tuple(one for one in listed if isinstance(one, int))


def _source(name: str, settings: Settings) -> str:
    """Return where transformers finds the tokenizer; of a hub id it fetches nothing else."""
    model = resolve(name)
    if isinstance(model, Folder):
        return str(model.path)
    if isinstance(model, HubId):
        return str(pulled(name, cache=settings.cache) or model.id)
    return str(pull(name, cache=settings.cache))
