"""What injected orders sound like: phrases that speak to the agent instead of telling it a fact.

All patterns read the skeleton of a text (`elision.guards.detection.canonical.L1`): one case, no
accents, no look-alikes, nothing invisible, one blank between words.
"""

from __future__ import annotations

import re
from typing import Final

_NEAR: Final = r"[^.!?]{0,60}?"
_RULES: Final = (
    r"(?:[a-z]*structions?|prompts?|rules?|guidelines?|directives?|polic(?:y|ies)|guardrails?"
    r"|restrictions?|safety|orders|context|messages?|constraints|training|limits|conversation"
    r"|commands?|requests?|tasks?|advice)"
)
_SENSITIVE: Final = (
    r"(?:passwords?|passcodes?|credentials?|secrets?|tokens?|(?:api|access|private) keys?"
    r"|verification codes?|security codes?|(?:user|personal|private|customer|account|contact)"
    r"[a-z ,'_]{0,20}(?:info(?:rmation)?|data|details|records?|history)|id_numbers?|passport"
    r"|bank account|messages?|e-?mails?|inbox|conversations?|chat|transcripts?|contents?|files?"
    r"|documents?|transactions?|histor(?:y|ies)|money|funds|payments?|bitcoin|crypto|[$€£] ?\d)"
)
_ORDERS: Final = (
    # Overriding what was said before
    rf"\b(?:ignor|disregard|forget|overrid|bypass|neglect|discard|supersed)\w*\b(?: \S+){{0,4}}? "
    rf"(?:previous|prior|above|earlier|preceding|former|original|initial|your|system|these|those"
    rf"|the user'?s?|all|any|other|everything|every)\b(?: \S+){{0,3}}? {_RULES}\b",
    r"\b(?:ignore|disregard|forget|discard) (?:\S+ ){0,3}?(?:everything|anything|what(?:ever)?|all"
    r"(?: of)?(?: the)?|the) (?:\S+ ){0,4}?(?:above|before|previously|earlier|so far|you (?:know"
    r"|were"
    r"|have been|are|learned)|said|told)\b",
    rf"\b(?:do not|don'?t|stop|never|no longer|not) (?:follow|obey|heed|adhere|comply|listen)\w*"
    rf"{_NEAR}(?:{_RULES}|user|operator|system|them|him|her)\b",
    r"\b(?:new|updated|revised|real|actual|true|hidden|important|urgent|special|following"
    r"|mandatory) (?:system )?(?:instructions?|directives?|orders?|prompt)\b",
    r"\b(?:takes?|has|have) (?:precedence|priority) over\b|\bsupersedes? (?:all|any|every|your)\b",
    r"\bignore (?:all |any |the |these |those |my |your )?(?:instructions?|directives?|rest)\b",
    r"\b(?:just|only|simply|please) (?:print|say|repeat)\b|\b(?:never|do not"
    r"|don'?t) (?:ever )?(?:refuse"
    r"|deny|decline|apologi[sz]e|say no|break character|evaluate the)\b",
    # Another role
    r"\byou are (?:an?|the|going to|about to|no longer|not) (?!asked|given|told|done"
    r"|sure)(?:\S+ ){0,4}?"
    r"(?:ai|assistant|model|bot|chatbot|chatgpt|gpt\S*|character|role\S*|being|persona|human"
    r"|agent|expert"
    r"|hacker|admin\w*|machine|entity|immerse|act|play|pretend|bound)\b",
    r"\byou (?:will|shall|must|have to|should|can|may) (?:\S+ )?(?:respond|reply|speak|obey"
    r"|comply|pretend"
    r"|refuse|answer (?:my|all|any|as|every|both))\b",
    r"\b(?:take on|assume|play|adopt) the (?:role|persona|character|identity)\b|\b(?:roleplay"
    r"|role-play"
    r"|role play|immerse yourself|alter ego|in character)\b|\bfrom this (?:point|moment)\b",
    r"\b(?:openai|chatgpt|do anything now|as an ai|large language model|ai language model)\b",
    r"\b(?:no|without(?: any)?|free (?:of|from)|not (?:bound|restricted|limited) by|broken free"
    r"|break free"
    r"|any and all)(?: \S+){0,3}? (?:restrictions|limitations|guidelines|censorship|moral\w*"
    r"|ethic\w*"
    r"|boundaries|polic(?:y|ies)|rules|laws)\b",
    r"\b(?:uncensored|unfiltered|amoral|nsfw|porn\w*|jailbroken)\b|\b(?:write|say|generate"
    r"|produce|create"
    r"|compose|tell)\b[^.!?]{0,40}?\b(?:harmful|offensive|toxic|discriminatory|hateful|racist"
    r"|sexist"
    r"|explicit|illegal|unfriendly|negative|malicious) (?:sentence|content|text|message|joke|story"
    r"|statement|comment|review|code)s?\b",
    r"\b(?:automated|automatic) (?:screening|analysis|review|evaluation|grading|processing)\b"
    r"[^.!?]{0,30}?\b(?:systems?|software|tools?)\b|\binvisible to (?:humans|users|people)\b"
    r"|\bif (?:you are |you're )?questioned\b|\bpre-?(?:verified|approved|authori[sz]ed)\b",
    r"\byou(?:'re| are| will| shall| must)(?: \S+)? (?:now|henceforth|from now on)\b",
    r"\bfrom (?:now|here|this point) on(?:wards?)?,? (?:you|always|never|only|respond|answer"
    r"|every|act)\b",
    r"\b(?:act|behave|respond|roleplay|role-play) (?:as|like) (?:an? |the |if )?(?:\S+ ){0,3}?"
    r"(?:you|admin\w*|root|developer|dan|unrestricted|unfiltered|evil|hacker|persona|assistant|ai"
    r"|model|system|character|attacker)\b",
    r"\bpretend (?:to be|that you|you)\b|\bjailbr\w+|\b(?:developer|god|debug|admin|dan"
    r"|sudo) mode\b",
    r"\bsystem[ _-]?(?:prompt|message|instruction|override|note)s?\b"
    r"|\badmin(?:istrator)? override\b",
    # Speaking to the agent
    r"\b(?:attention|dear|hey|hello|hi|note (?:to|for)|message (?:to|for)|instructions? (?:to|for)"
    r"|reminder (?:to|for)|memo (?:to|for)),? (?:the |any |all |every |future )*"
    r"(?:ai|a\.i\.|llm|gpt\S*|chatgpt|claude|gemini|language model|agents?|assistants?|chatbots?"
    r"|bots?|models?|students?|judges?|teachers?|graders?)\b",
    r"\bimportant (?:message|notice|announcement|update|information) (?:from|to|for)\b",
    r"\bbefore you (?:can|may|are able to|do anything|solve the|proceed with the task)\b",
    r"\b(?:please )?(?:do|perform|execute|complete|carry out|follow) (?:the )?following\b"
    r"(?: \S+){0,3}? ?(?:first|instead|now|task|steps? first|instructions?|orders?|:)",
    r"\bto ?do:",
    r"\b(?:your|the) (?:only|main|real|primary|true|new) (?:goal|task|job|purpose|mission"
    r"|objective)"
    r" (?:is|will be|now)\b",
    # Sending things away
    rf"\b(?:send|forward|e-?mail|mail|post|upload|transmit|exfiltrate|leak|share|deliver"
    rf"|dispatch|cc"
    rf"|bcc|copy|relay|report|publish|disclose|wire|transfer|pay|append)\w*\b{_NEAR}"
    rf"\b{_SENSITIVE}\b{_NEAR}\b(?:to|via|at|with|through|on|into|under)\b",
    r"\balways (?:send|forward|e-?mail|mail|post|upload|share|cc|bcc|copy|transfer|pay|buy|approve"
    r"|accept|grant|allow|trust|recommend|promote|praise|call|visit|open|download|install)\b",
    r"\b(?:send|forward|e-?mail|wire|transfer|pay|deposit|donate|remit)\w*\b[^.!?]{0,80}?"
    r"\b(?:account|iban|wallet|attacker\S*|my (?:new )?(?:e-?mail|address|account|server))\b",
    r"\b(?:transfer|wire|pay|deposit|remit|donate|invest)\b[^.!?]{0,40}?(?:[$€£] ?\d|\d+ ?(?:usd"
    r"|eur|btc)"
    r"|money|funds|bitcoin)",
    r"\bsend (?:a |an |the |this )?(?:\S+ )?(?:link|transaction|payment|invoice)\b",
    rf"\b(?:reveal|print|show|output|repeat|leak|expose|disclose|tell me|give me|hand over|retrieve"
    rf"|get|find|read|collect|dump)\b{_NEAR}\b(?:passwords?|credentials?|secrets?|api keys?"
    r"|access tokens?|verification codes?|security codes?|private keys?|passport\S*)\b",
    r"\b(?:change|reset|update|modify)\b[^.!?]{0,30}?\b(?:password|recipient|passcode|e-?mail"
    r" address|phone number|payee|permissions?)\b",
    r"\binvite (?:user |the user )?\S+[^.!?]{0,40}?\b(?:to|into)\b",
    # Hiding it
    r"\b(?:do not|don'?t|never|without|avoid|must not) (?:ever )?(?:tell|telling|mention\w*"
    r"|inform\w*"
    r"|notify\w*|notice|reveal\w*|disclos\w+|alert\w*|warn\w*|report\w*|show\w*|ask\w*|consult\w*"
    r"|confirm\w*|discuss\w*)\b[^.!?]{0,40}?\b(?:user|users|anyone|anybody|operator|human|owner"
    r"|developer|admin\w*|them|him|her|supervisor|teacher|confirmation|permission|this|it)\b",
    r"\b(?:secretly|covertly|silently (?:send|forward|add|run|execute)|behind (?:the"
    r"|their) back)\b",
    r"\bkeep (?:this|it|that)(?: \S+)? (?:secret|hidden|confidential|quiet|private)\b",
    # Taking the brakes off
    r"\b(?:disable|deactivate|turn off|switch off|bypass|circumvent|evade|skip|remove|suppress"
    r"|ignore)"
    r"\b[^.!?]{0,30}?\b(?:guards?|guardrails?|safety|filters? for|content filter|validations?"
    r"|verification|authentication|authori[sz]ation|access control|logging|audit\w*|monitoring"
    r"|security"
    r"|approvals?|approval|2fa|two-factor|firewall|moderation|judge|teacher|restrictions?"
    r"|permissions?"
    r"|confirmations?|sandbox|antivirus)\b",
    r"\b(?:grant|give|assign|escalate|elevate)\b[^.!?]{0,30}?\b(?:permissions?|privileges?|access"
    r"|admin\w*|root|rights)\b",
    r"\b(?:all|any|every) (?:requests?|users?|actions?|commands?|payments?|transactions?) (?:is"
    r"|are)"
    r" (?:\S+ )?(?:approved|authori[sz]ed|allowed|permitted|trusted|safe)\b",
    r"\b(?:user|operator|admin\w*|owner) (?:has |have )?(?:already )?(?:approved|authori[sz]ed"
    r"|consented|agreed|confirmed|given (?:permission|consent))\b",
    r"\bwithout (?:\S+ ){0,2}?(?:approval|confirmation|permission|consent|authori[sz]ation|review"
    r"|asking|verification|hesitation|questions?)\b",
    # Swaying the judge
    r"\b(?:give|assign|award|rate|return|output|report|set|grade|score|mark"
    r"|deserves?)\b[^.!?]{0,40}?"
    r"\b(?:full|maximum|maximal|highest|perfect|max|top|good|high)(?: possible)? (?:scores?|marks?"
    r"|ratings?|points|rewards?|grades?|credits?|confidence)\b",
    r"\b(?:give|assign|award|rate|grade|score|mark|scores?|rating"
    r"|reward)\b[^.!?]{0,30}?(?:\b10 ?/ ?10"
    r"|\b5 ?/ ?5|\b1\.0\b|\b100 ?%|\b10 out of 10|\bof 1(?:\.0)?\b)",
    r"\b(?:mark|treat|accept|consider|count|declare|judge|deem|rate|grade)\b[^.!?]{0,30}?\b(?:as )"
    r"(?:correct|valid|passed|successful|success|safe|trusted|approved|perfect|solved)\b",
    # Words put into the mouth
    r"\b(?:say|tell|reply|respond|answer|write|state|mention|claim|recommend|append|insert|include"
    r"|begin|start|end|finish)\b[^.!?]{0,40}?\b(?:that (?:i|you|they|we|users?|everyone|people)"
    r" should|the following (?:text|link|phrase|sentence|words?|message|line|string)"
    r"|every (?:future )?"
    r"(?:answer|response|reply|message)|all (?:future |your )?(?:answers|responses|replies"
    r"|messages)"
    r"|the (?:phrase|words?|sentence|string) [\"'“‘`])",
    r"\b(?:in|for|to|across|during|at the (?:end|start|beginning) of) (?:all|every|each"
    r"|any) (?:future"
    r"|subsequent|later|new) (?:\S+ )?(?:sessions?|conversations?|responses?|answers?|replies"
    r"|tasks?"
    r"|episodes?|runs?|requests?)\b",
    r"\b(?:repl(?:y|ies)|respond|answer) (?:only|exclusively|solely|just) with\b",
    r"\babsolutely (?:visit|buy|use|try|must|should)\b",
    # Destroying things, doing things in the world that no advice needs
    r"\b(?:delete|erase|wipe|purge|destroy|shred|encrypt|overwrite)\b[^.!?]{0,40}?\b(?:all|every"
    r"|the|my"
    r"|user'?s?|entire|whole)\b[^.!?]{0,30}?\b(?:files?|tables?|e-?mails?|databases?|messages?"
    r"|logs?"
    r"|backups?|data|users?|accounts?|events?|disks?|drives?|records?|memor(?:y|ies)|history"
    r"|playbook)\b",
    r"\b(?:make|book|place|create|add|schedule) (?:a |an |the )?(?:reservation|booking|order"
    r"|purchase"
    r"|payment|transfer|calendar event|appointment|event)\b[^.!?]{0,60}?\b(?:for|at|with|on|to"
    r"|titled"
    r"|called)\b",
    r"\b(?:visit|open|click|go to|navigate to|browse)\b[^.!?]{0,30}?\b(?:link|website|web ?site|url"
    r"|web ?page)\b",
)
_ORDER: Final = tuple(re.compile(code) for code in _ORDERS)


def orders_the_agent(skeleton: str) -> bool:
    """Return whether *skeleton*, the `L1` of a text, holds a phrase that gives the agent orders."""
    return any(code.search(skeleton) for code in _ORDER)
