"""Grammars as hard masks: JSON by schema, calls of tools, whatever a Lark grammar says."""

from __future__ import annotations

from elision.middleware.interventions.grammar.check import check as check
from elision.middleware.interventions.grammar.pruning import pruned as pruned
from elision.middleware.interventions.grammar.recipe import Grammar as Grammar
from elision.middleware.interventions.grammar.source import json_of as json_of
from elision.middleware.interventions.grammar.source import of_schema as of_schema
from elision.middleware.interventions.grammar.unescaped import in_json as in_json
from elision.middleware.interventions.grammar.unescaped import unescaped_masks as unescaped_masks
