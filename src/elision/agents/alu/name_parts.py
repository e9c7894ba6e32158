"""Parts that names are made of: given names, and beginnings and ends of surnames."""

from __future__ import annotations

from typing import Final

GIVEN: Final = tuple(
    "abelard ada adaline adam adela adelbert adele adelina adriana agatha agnes alaric albin "
    "albina aldous aldwin alena aleta alfreda alice alina aloysius alvina alwin amabel amadeo "
    "ambrose amelia amos anatole andrea angus anita annika anselm ansgar anton antonia apollonia "
    "arabella archibald ariadne arno arthur arvid ascan astor astrid augusta aurelia aurelio axel "
    "baldwin balthasar baptiste barbara barnaby bartholomew basilia beata beatrice benedict "
    "benita benno berenice berit bernard bertha bettina birgit blanche boniface boris branwen "
    "brenda brian bridget brigitte brunhild bruno burkhard calista calixta camilla carina carla "
    "carlotta carsten casimir caspar cassandra cassius catrin cecil cecily celeste celia cesare "
    "chiara christabel clara clarissa claudio clemens clementine cletus clotilde colette conrad "
    "conradin consuelo cora cordelia corinna cornelius cosima cosmo crispin cyprian cyra cyril "
    "dagmar dagny damaris damian daniel daphne daria davide debora deborah delia delphine "
    "demetrius denis desmond detlef diana diethelm dimitri dionne dolores dominica dorian doris "
    "dorit dorothea drusilla dunja eberhard edda edeltraud edgar edgard edith edmund edwina "
    "egbert egon eileen elena elfriede elias elinor elisabetta ellinor elmira eloise elsa elspeth "
    "elvira emanuel emeric emil emmeline enrica erhard erica erna ernest ernestine ervin "
    "esmeralda estelle esther ethelbert eudora eugene eugenia eulalia euphemia eustace evadne "
    "evelina ewald fabian fabiola faustina felipa felix ferdinand fidelia filippa fiona fiorella "
    "flavia florian floris francis franziska freya frida frieda friedhelm fritz fulvia gabriel "
    "gaspard genevieve george georgina geraldine gerda gerhard gerold gertrud gideon gisela "
    "giselle gottfried gregor gregory greta griselda gudrun guinevere gundula gunther gustav "
    "gwendolyn hadrian hannah hanno harald harriet harriette hartmut hector hedda hedwig heidrun "
    "heike helen helga heloise hendrik henrike henry heribert hermine hermione hieronymus hilda "
    "hildegard hippolyte honora horatio horst hortense howard hubertus hugo humbert ian ignatius "
    "igor ilona ilse imelda imogen ines ingeborg ingmar ingrid ippolita irene irma irmgard isaac "
    "isadora isidor isolde ivan jacob jadwiga jakob janina jarmila jasper jelena jerome joachim "
    "jocasta jolanda jonas jorinde josepha josephine jost judith julian jutta kaja kamilla karin "
    "karl kaspar kathinka katinka katrin keith kilian kim kirsi kirsten klara klemens knut konrad "
    "kora korbinian kunigunde kurt ladislaus lambert lancelot lars laura laurence lavinia leander "
    "leif lena lenora leonard leonora leopold letitia liane liborius lidia lieselotte lilian "
    "linda linus lionel liv lorenz lothar louis lucas lucinda ludmila ludovic luise lutz lydia "
    "mabel maddalena magda magnus maike malcolm malte malwina manfred marcella marcus marga "
    "margot marian marius marlene marthe martin mathias mathilda matilda maurice mechthild "
    "melchior melusine milena mirabel miriam mirko monika morgana moritz muriel myra nadia nadine "
    "nanette naomi narcissa natalia nathan neil nepomuk nestor nicodemus nicola nikolaus nils "
    "nina nora norbert norman odette odile olaf olga oliver olivia ophelia orlando orsola ortrud "
    "oscar oskar osmund oswald ottilie otto ottokar owen pamela pascal patrick paula penelope "
    "percy peregrine peter petra petronella philip philippa philomena phoebe piers pirmin placida "
    "polyxena quentin quirin rachel radegund rafaela ragna raimund ralph ramona raphaela raymond "
    "reinhild remigius renate rhoda ricarda robin roderick roland rosalba rosalind rosamund "
    "roswitha rufus rupert ruth sabina salome samuel sandra saskia sebald selma senta serafina "
    "severin sibylle sidney siegbert sieglinde siglinde sigmund silke silvana silvia simon sofia "
    "solveig sonja sunniva sven svenja swantje sybil tabea tamara tancred tatjana teresa thaddeus "
    "thea thekla theo theobald theodora thilo thomas tilda tilman timon tobias torben traudl "
    "tristan trudi ulf ulla ulrich ulrike ursula ute valentin valerie valeska veronika vigdis "
    "viktoria vinzenz vivian volker walter waltraud wanda wencke wendelin wendy wibke wiebke "
    "wilfred wilhelmina wiltrud winifred wolfram xaver xavier xenia yannick yasmin yolanda yorick "
    "ysolde yvette yvonne zacharias zelda zeno zephyrine zita zora".split()
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
FUNCTION_WORDS: Final = frozenset(
    "aber ahi ale algo alla alle als also altri am ami ani ante any ao aos ata atu au auch auf "
    "aus auto avec az ba bai bei beim ben bene bez bij bin bis bon boy buna cada cap car casa cea "
    "ceci cela ces cet chaque che chez chi ci cinco cine como con cosa cual cui cum dal dan dann "
    "dans das dass dat deci dein dem den denn dentro der des desde det deux di dice did die dies "
    "diese dio dir doch dois donc donde door dort dos due durch een egal ein eine einem einen "
    "einer eines elle ellos els em en entre er era eran eres ero esa ese eso esta este esto et "
    "etre etter eu eux fait far fem fin foi for fra fue fui fur ganz gar gegen gel gen gens gern "
    "gibt gli goed gut haar hab habe haben hace han hasta hat hatte hay hem hen her het hier hij "
    "hin hoch hoe hoy hun ich ihm ihn ihr ihre il ils im inte ist ja jag jak jako je jede jeder "
    "jest jeune jij jour jste jullie kan kein keine kon la lag lang las lei les leur lhe li lo "
    "loro los lui lundi ma mai mais mal mama man mar mas me mehr mein mem men menos mer mes mesi "
    "met mi mia mich mig mij mil mir mis mit moi moj mon mot muy na naar nach nad nada nas ne nei "
    "nein nel nella nem nes net nicht nie niet niks nimmer no noch noi non nos nosotros nous nu "
    "nul nun nur nya och oder oft ohne ook ora otra otro ou oud oui pai pan papa par para pas "
    "pela pele pelo per pero peu piu plus poco poi por porque pour povo pra pre pues qual que "
    "quel quelle quem quer qui quien quiere quoi rien sa sai sal salir san sans sao schon se sea "
    "sehr sei seid sein seine sem sempre senza ser sera ses seu si sia sich sie siempre sin sind "
    "sino sobre soit sol solo som somos son sono sont sou soy sta sto stor sua sul sur sus ta tal "
    "tan te tem ten tener tes teu tiene til tinha todo toi tom ton tos toto tous tout tra tre "
    "tres tri troppo tu tua tudo tun tus tut tutto uma un una und une uno uns unter uomo usted "
    "val van var vas vat vel ven ver vi via vida vier vil vir voce voi vom von voor vor vos vous "
    "vrai wann war ware waren warum was weil wel wem wen wenn wer werde wie wieder wil wir wird "
    "wo worden zal ze zeer zei zich zij zijn zo zu zum zur zwei".split()
)
"""Small words of languages beside English; no invented name is one."""
