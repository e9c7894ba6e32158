"""Parts that names are made of: common given names, and beginnings and ends of surnames."""

from __future__ import annotations

from typing import Final

GIVEN: Final = tuple(
    "adam adele agnes albin alice alma amelia amos andrea anita arthur astrid axel barbara "
    "beatrice benedict bernard bertha boris brian bruno camilla carla caspar cecil celia clara "
    "clement conrad cora cyril dagmar daniel deborah denis diana dora dorothea edgar edith edmund "
    "elena elias elsa emil erica ernest esther eugene eva fabian felicity felix fiona flora "
    "francis frida gabriel george gerda gideon gloria grace gregory gustav hannah harald harriet "
    "hector helen henry hilda howard hugo ian ida igor ines ingrid irene irma isaac ivan ivy jacob "
    "jasper jean jerome joan jonas josephine judith julian karin karl kaspar katrin keith kim "
    "kirsten klara kurt lars laura laurence lena leo leonard lilian linda louis lucas magda "
    "malcolm marcus margot marian martin matilda maurice max mira moritz nadia naomi nathan neil "
    "nicola nina nora norman odette olaf olga oliver ophelia oscar otto owen patrick paula percy "
    "peter petra philip phoebe quentin rachel ralph raymond regina rita robin roland rosa rupert "
    "ruth samuel sandra selma sidney silvia simon sofia stella sven tamara teresa theo thomas "
    "tilda tobias ulla ulrich una ursula valentin valerie vera victor viola vivian walter wanda "
    "wendy wilfred xaver xenia yannick yolanda yvonne zacharias zelda zita".split()
)
BEGINNINGS: Final = tuple(
    "ald an ar ash bar ben ber bir blan bor brad bren bur cal car chal clay col cor cran dal dan "
    "den dor dra dun ed el en er es fal fen fin flo for fro gal gar gil gor gran gul hal han har "
    "hel hol hor il in ir is jan jar jen jor kal kar kel kin kol kor lam lan lar len lin lor mal "
    "man mar mel mer mil mor nar nel nes nor ol or os par pel pen pil por pran quar quen quin ran "
    "red ren ril ros ruth sal san sel shel sor stan tal tar tel thor tol tran ul un ur val van ver "
    "vil vor wal war wel wil win xan xel yal yar yor zal zan zel zor".split()
)
ENDINGS: Final = tuple(
    "a ai en er i in o as au ban bel ber dal den der dor ek ell ens eri ers ett ez fer gan hal han "
    "ini ira kan kel ken ler ley man men mer mon nel ner ock off old oni ori orn ova rick sel sen "
    "ska ski sky son ster ta ten ter ton tz vel ven vin wen wick berg bury dale feld field ford "
    "gard hagen ham hart holm hurst inger ington land lock low mann mark meyer mond more quist "
    "ridge shaw stad stein stone strom thal tree vall vard ville ward water well wood worth".split()
)
MIDDLES: Final = ("der", "el", "en", "er", "in", "ing", "ner", "ver")
PLAIN: Final = tuple(
    "amber autumn bridge candle castle copper crimson distant forest garden golden harbour island "
    "lantern marble meadow mirror morning mountain narrow northern orchard quarry quiet river "
    "scarlet shadow silver sparrow summer thunder timber valley velvet willow window winter".split()
)
"""What stands for ordinary words, of which titles are made."""
