"""TextWorld cooking games, generated on this machine, as a world.

Source:
    Côté et al. 2018, TextWorld: A Learning Environment for Text-based Games, arXiv:1806.11532;
    the cooking challenge of its package (MIT).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task
from elision.errors import MissingExtraError
from elision.evaluation.atlas.cook import APPLIANCE, HEAT, KNIFE, OPEN, RECIPE, SKILLS, Cook, recipe
from elision.evaluation.atlas.skills import Skill, chance
from elision.evaluation.atlas.world import Move, Play

LEVELS: Final[tuple[Mapping[str, Any], ...]] = (
    {"recipe": 1, "take": 1, "open": False, "cook": False, "cut": False},
    {"recipe": 1, "take": 1, "open": True, "cook": False, "cut": False},
    {"recipe": 1, "take": 1, "open": True, "cook": True, "cut": False},
    {"recipe": 1, "take": 1, "open": True, "cook": True, "cut": True},
    {"recipe": 2, "take": 2, "open": True, "cook": True, "cut": True},
)
"""The curriculum: one room, and from level to level more to do."""
HELD_OUT: Final = 1000
"""Added to the seeds of the games that nobody trains on."""
_VERBS: Final = {
    "open": OPEN, "cook": HEAT, "slice": KNIFE, "chop": KNIFE, "dice": KNIFE,
}  # fmt: skip
_FRAME: Final = re.compile(r"[\s_|\\/$]*|>.*-=.*=-.*")
"""Lines of the banner, and the status line."""


class KitchenWorld:
    """Cooking games of rising difficulty; untagged, told by their opening text.

    Args:
        work: A folder for the games; those that lie there are not made again.
        n_games: Games per level to train on.
        n_held_out: Games per level for the transfer, of other seeds.

    Raises:
        MissingExtraError: If textworld is not installed.
    """

    def __init__(self, work: Path, *, n_games: int = 6, n_held_out: int = 2) -> None:
        self.name = "textworld_cooking"
        self.skills = SKILLS
        self._stages: dict[str, GameStage] = {}
        self._plays: dict[tuple[str, frozenset[str], str], Play] = {}
        self._grades: dict[tuple[str, tuple[str, ...]], float] = {}
        self.trained = self._tasks(work, range(1, n_games + 1))
        self.held_out = self._tasks(work, range(HELD_OUT, HELD_OUT + n_held_out))

    def _tasks(self, work: Path, seeds: Iterable[int]) -> tuple[Task, ...]:
        drawn = tuple(seeds)
        return tuple(self._task(work, n, seed) for n in range(len(LEVELS)) for seed in drawn)

    def _task(self, work: Path, level: int, seed: int) -> Task:
        name = f"{level}-{seed}"
        stage = GameStage(make(work / f"{name}.z8", LEVELS[level], seed))
        self._stages[name] = stage
        return Task(stage.opening, id=name)

    def order(self, seed: int) -> Sequence[Task]:
        """Return the games level by level; within a level, in the order of *seed*."""

        def place(task: Task) -> tuple[str, float]:
            level = str(task.id).partition("-")[0]
            return level, chance(str(seed), str(task.id))

        return sorted(self.trained, key=place)

    def play(self, task: Task, skills: frozenset[str], seed: str) -> Play:
        """See `World.play`; what was played once is not played again: a game has no chance."""
        key = (self._name(task), skills, seed)
        if key not in self._plays:
            cook = Cook(self._begun(task), skills, seed)
            cook.play()
            moves = tuple(Move("do", {"command": c}, seen) for c, seen in cook.moves)
            self._plays[key] = Play(moves[-1].seen if moves else "", moves)
        return self._plays[key]

    def needs(self, task: Task) -> tuple[Skill, ...]:
        """Return what a winning policy and the recipe take, reading it before all.

        The policy leaves out what need not be done, as cooking what is cooked already; whoever
        reads the recipe must know that.
        """
        stage = self._begun(task)
        verbs = [command.split()[0] for command in stage.policy]
        _, directions = recipe(stage.do("examine cookbook"))
        heats = [verb for verb, _ in directions if verb in APPLIANCE]
        found = {_VERBS[verb] for verb in verbs if verb in _VERBS} | {HEAT for _ in heats}
        return tuple(skill for skill in SKILLS if skill is RECIPE or skill in found)

    def grade(self, task: Task, attempt: Attempt) -> float:
        """Give the attempt's commands once more; return the share of the points."""
        commands = tuple(str(action.args["command"]) for action in attempt.actions)
        key = (self._name(task), commands)
        if key not in self._grades:
            stage = self._begun(task)
            for command in commands:
                if not stage.over:
                    stage.do(command)
            self._grades[key] = stage.score
        return self._grades[key]

    def _begun(self, task: Task) -> GameStage:
        stage = self._stages[self._name(task)]
        stage.reset()
        return stage

    def _name(self, task: Task) -> str:
        assert task.id is not None, "tasks of a world have ids"
        return task.id

    def close(self) -> None:
        """End the games' interpreters. Idempotent."""
        for stage in self._stages.values():
            stage.close()
        self._stages.clear()


class GameStage:
    """One game, which can be begun again; see `elision.evaluation.atlas.cook.Stage`."""

    def __init__(self, game: Path) -> None:
        textworld = _textworld()
        wanted = textworld.EnvInfos(
            admissible_commands=True, policy_commands=True, won=True, lost=True,
            score=True, max_score=True,
        )  # fmt: skip
        with _quiet():
            self._env = textworld.start(str(game), wanted)
        self.can: Sequence[str] = ()
        self.over = False
        self.opening = _plain(self.reset())

    def reset(self) -> str:
        """Begin again; return the opening text."""
        with _quiet():
            self._state = self._env.reset()
        return self._look()

    def do(self, command: str) -> str:
        """See `Stage.do`."""
        self._state, _, _ = self._env.step(command)
        return _plain(self._look())

    @property
    def policy(self) -> tuple[str, ...]:
        """Commands that win from here; empty where nothing does."""
        return tuple(self._state.policy_commands or ())

    @property
    def score(self) -> float:
        """Share of the points, 1 for a game that was won."""
        return 1.0 if self._state.won else min(0.99, self._state.score / self._state.max_score)

    def close(self) -> None:
        """End its interpreter."""
        self._env.close()

    def _look(self) -> str:
        self.can = tuple(c for c in self._state.admissible_commands if c != "look")
        self.over = bool(self._state.won or self._state.lost)
        return str(self._state.feedback)


def make(file: Path, level: Mapping[str, Any], seed: int) -> Path:
    """Generate the game of *level* and *seed*, unless it is there; it takes about 2 s.

    Raises:
        MissingExtraError: If textworld is not installed.
    """
    if not file.exists():
        textworld = _textworld()
        cooking = import_module("textworld.challenges").cooking
        options = textworld.GameOptions()
        options.seeds = seed
        options.path = str(file)
        settings = {"drop": False, "go": 1, "recipe_seed": seed, "split": None, **level}
        with _quiet():
            textworld.generator.compile_game(cooking.make(settings, options), options)
    return file


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the interpreter: it warns that it does not know the games that were just made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _textworld() -> Any:
    try:
        return import_module("textworld")
    except ImportError as exc:
        raise MissingExtraError("textworld", extra="bench") from exc


def _plain(text: str) -> str:
    """Return *text* without the banner, the status line and the score."""
    lines = [line.strip() for line in text.splitlines() if not _FRAME.fullmatch(line)]
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip(" \n>_")
