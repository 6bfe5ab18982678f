"""Stop words, spam words and flagged words, by language: short lists, written here.

Stop words are a language's most frequent function words, enough that running prose has a third or more of them.
Flagged words are unambiguous terms of pornography only; ambiguous ones would cost medicine and news.
A language without a list has no such score, and the rules over it do not apply.
"""

from __future__ import annotations

_STOP = {
    "en": """
        a about above after again against all also although am among an and any are as at be because been before
        being below between both but by can cannot could did do does doing down during each either else ever
        every few for from further had has have having he her here hers herself him himself his how however i if
        in into is it its itself just less let many may me might more most much must my myself neither no nor
        not now of off often on once one only or other our ours ourselves out over own per quite rather same she
        should since so some still such than that the their theirs them themselves then there these they this
        those though through thus to too under until up upon us use used using very was we well were what when
        where whether which while who whom whose why will with within without would yet you your yours yourself
        don't doesn't didn't isn't aren't wasn't won't can't it's that's i'm i've you're we're they're there's
    """,
    "de": """
        aber alle allem allen aller alles als also am an ander andere anderen anderer anderes auch auf aus bei
        beim bin bis bist da dabei dadurch daher dann daran darauf das dass dazu dein deine dem den denn der des
        deshalb dessen dich die dies diese diesem diesen dieser dieses dir doch dort du durch ein eine einem
        einen einer eines einige einmal er es etwas euch eure für gegen hab habe haben hat hatte hatten hier hin
        hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jedem jeden jeder jedes jedoch
        kann kein keine keinen können könnte man mehr mein meine mich mir mit muss müssen nach nicht nichts noch
        nun nur ob oder ohne schon sehr sein seine seinem seinen seiner seit sich sie sind so solche soll sollte
        sondern sonst sowie über um und uns unser unsere unter viel vom von vor während war waren was weil
        welche welcher wenn wer werden wie wieder will wir wird wo wurde wurden zu zum zur zwar zwischen
    """,
    "fr": """
        à afin ai ainsi alors après au aucun aussi autre autres aux avait avant avec avoir c'est car ce ceci
        cela celle celui ces cet cette ceux chaque chez comme comment d'un d'une dans de des donc dont du elle
        elles en encore entre est et était été être eu eux fait faire font il ils j'ai je jusqu l'on la le les
        leur leurs lors lui ma mais me même mes moi moins mon n'est ne ni non nos notre nous on ont ou où par
        parce pas pendant peu peut peuvent plus pour pourquoi qu'il qu'elle qu'on qu'un quand que quel quelle
        quelles quelque quelques quels qui quoi s'est sa sans se selon sera ses si soi soit son sont sous sur ta
        te tes toi ton tous tout toute toutes très trop tu un une vers voici voilà vos votre vous y
    """,
    "es": """
        a al algo algunas algunos ante antes aquel así aún aunque bajo bien cada casi como cómo con contra cual
        cuales cuando de del desde donde dos durante e el él ella ellas ellos en entre era eran es esa esas ese
        eso esos esta está están estaba estas este esto estos fue fueron ha había habían han hasta hay la las le
        les lo los más me mediante mi mientras mis mismo mucho muchos muy nada ni no nos nosotros nuestra
        nuestro o os otra otras otro otros para pero poco por porque pues que qué quien quienes se sea según ser
        si sí sido siempre sin sino sobre solo son su sus tal también tan tanto te tiene tienen toda todas todo
        todos tras tu tus un una unas uno unos usted ustedes va vez y ya yo
    """,
    "it": """
        a abbia ad agli ai al alla alle allo anche ancora avere c'è che chi ci circa coi col come con contro
        così cui da dagli dai dal dalla dalle dallo degli dei del dell della delle dello dentro di dopo dove
        dunque è e ed era erano essere fa fra fu gli ha hai hanno ho i il in io la le lei li lo loro lui ma me
        mentre mi mia mio molto ne negli nei nel nella nelle nello noi non nostra nostro o ogni oltre oppure per
        perché però più poi prima può qual quale quali quando quanto quella quelle quelli quello questa queste
        questi questo qui sarà se sei senza si sia siamo sono sopra sotto sta stata stato su sua sugli sui sul
        sulla sulle suo suoi tale tra tu tutta tutte tutti tutto un una uno vi voi
    """,
    "pt": """
        a à ao aos aquela aquele aquilo as às até cada com como contra da das de dela dele depois desde dessa
        desse desta deste do dos e é ela elas ele eles em embora enquanto entre era eram essa essas esse esses
        esta está estão estas estava este estes eu foi foram há isso isto já lhe mais mas me mesmo meu minha
        muito muitos na não nas nem no nos nós nossa nosso num numa o onde os ou outra outras outro outros para
        pela pelas pelo pelos pode podem pois por porque quais qual quando que quem são se seja sem sempre ser
        será seu seus si sido só sob sobre sua suas também tão tem têm ter toda todas todo todos tudo um uma
        umas uns você vocês
    """,
    "nl": """
        aan al alle alleen als altijd andere ben bij daar dan dat de deze die dit doen door dus een en er geen
        haar had hebben heeft heel hem het hier hij hoe hun iets ik in is ja je jij jou jouw kan kon kunnen maar
        me meer men met mij mijn moet moeten na naar niet niets nog nu of om omdat onder ons onze ook op over
        reeds te tegen ten ter tot u uit uw van veel voor waar waren was wat we wel werd werden wie wij wil
        worden wordt zal ze zeer zelf zich zij zijn zo zonder zou zouden
    """,
}
_SPAM = {
    "en": """
        account accept ad ads advertisement advertising agree buy cart cashback checkout click comment comments
        consent cookie cookies copyright coupon disclaimer download email facebook follow free gdpr google
        instagram javascript like likes linkedin login logout newsletter password pinterest policy popup privacy
        promo reddit register reply reserved rights share shared shares shop signup skip sponsored subscribe
        subscription tweet twitter unsubscribe username whatsapp youtube
    """,
    "de": """
        abonnieren agb anmelden anzeige cookie cookies datenschutz datenschutzerklärung facebook gutschein
        impressum instagram kommentar kommentare kommentieren newsletter passwort registrieren teilen twitter
        warenkorb weiterlesen werbung whatsapp zustimmen
    """,
    "fr": """
        abonner abonnez accepter commentaire commentaires confidentialité connexion cookie cookies facebook
        inscription instagram mentions newsletter panier partager publicité suivez twitter whatsapp
    """,
    "es": """
        aceptar anuncio boletín carrito comentar comentarios compartir contraseña cookie cookies facebook
        instagram newsletter privacidad publicidad registrarse suscribirse suscríbete twitter whatsapp
    """,
}
_FLAGGED = {
    "en": """
        bdsm blowjob blowjobs bukkake camgirl creampie cumshot cumshots deepthroat dildo dildos gangbang handjob
        hentai jizz milf milfs orgy porn pornhub porno pornstar pornstars pussy rimjob sexcam slut sluts strapon
        tits titties upskirt whore whores xhamster xnxx xvideos xxx
    """,
    "de": """
        dildo fick ficken fotze gangbang hentai huren milf muschi nutte nutten porno pornos sexcam sexkontakte
        titten wichsen
    """,
    "fr": """
        gangbang hentai nichons partouze porno pute putes salope salopes sodomie
    """,
    "es": """
        follada follando follar gangbang hentai mamada pollas porno pornografía puta putas xxx zorras
    """,
}

STOP_WORDS = {language: frozenset(text.split()) for language, text in _STOP.items()}
SPAM_WORDS = {language: frozenset(text.split()) for language, text in _SPAM.items()}
FLAGGED_WORDS = {language: frozenset(text.split()) for language, text in _FLAGGED.items()}
