"""Letters that pass for Latin ones, folded to them; data only.

Part of this table (the pairs that Unicode calls *intentional* confusables) is taken from
``intentional.txt`` of Unicode Technical Standard 39, version 17.0.0, © 2025 Unicode, Inc. Unicode
and the Unicode Logo are registered trademarks of Unicode, Inc. in the U.S. and other countries;
for terms of use and licence see https://www.unicode.org/terms_of_use.html. The rest (Cyrillic,
Greek, Armenian, Coptic, Cherokee and Lisu look-alikes, Latin letters with strokes, small capitals)
was put together by hand.

Both sides are case-folded, and a letter has one image whatever its case: were *В* mapped to *b* but
*в* left alone, a Cyrillic phrase could slip through in the other case. Where the capital and the
small letter resemble different Latin letters (ν: N, v) the capital decides, as UTS 39 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ALIKE: Final = (
    # Cyrillic
    ("авсԁеѐғһніјкӏмпоөѳрҏԛгѕтѵѡԝхуүьҫ", "abcdeefhhijklmnoooppqrstvwwxyybc"),
    # Greek, and the APL symbols that UTS 39 pairs with it
    ("αβγεζηικμνοπρτυχωϳ⍺⍳⍴⍵", "abrezhikmnonptyxwjaipw"),
    # Armenian
    ("օոռսհզցյլտ", "onnuhqgjls"),
    # Coptic
    ("ⲁⲃⲉⲍⲏⲓⲕⲙⲛⲟⲣⲥⲧⲩⲭ", "abezhikmnopctyx"),
    # Cherokee
    ("ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏃᏏᏒᏔᏕᏙᏚᏞᏟᏢᏦᏳᏴ", "drtiyajewmhygzbrwsvslcpkgb"),
    # Lisu
    ("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "bpdtgkjczfmnlsrvhwxyaeiou"),
    # Latin with strokes, hooks and without dots
    (
        "ıȷłøđðħŧƀɓƈɖɗɛƒɠɡɦɨɩƙĸɫƚɱŋɲɵƥʠɍɽʂʈƭʉʋⱳɏƴƶʐȥɑ",
        "ijloddhtbbcddefgghiikkllmnnopqrrsttuvwyyzzza",
    ),
    # Latin small capitals, and the Greek and Cyrillic ones that look the same
    ("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢᴦᴨᴩ", "abcdefghijklmnopqrstuvwyzrnp"),
    # The other intentional pairs of UTS 39: the first of two stands for both
    ("бәǝӡσλᴫңқឣᡕ𐏑𐏓𒀸", "ƃəəʒʃʌлⱨⱪអᠵ𐎂𐎓𐎚"),
    # Letters that UTS 39 pairs with a digit of their own script
    ("ဝᦞᦱᩅᬍᬑᬨ𐒆", "00102380"),
)
_LONGER: Final = {"æ": "ae", "ӕ": "ae", "œ": "oe"}

CONFUSABLES: Final[Mapping[str, str]] = MappingProxyType(
    {alike: latin for row in _ALIKE for alike, latin in zip(*row, strict=True)} | _LONGER
)
"""From a case-folded letter to the letters that stand for it; no image is itself a key."""
