"""Irregular forms of English words, which a stemmer does not know.

Left out are forms that are rather words of their own, such as bore, bound, ground, rose and wound.
"""

from __future__ import annotations

_FORMS = """
    arise: arose arisen
    awake: awoke awoken
    become: became
    begin: began begun
    bend: bent
    bite: bitten
    bleed: bled
    blow: blew blown
    break: broke broken
    breed: bred
    bring: brought
    build: built
    burn: burnt
    buy: bought
    catch: caught
    choose: chose chosen
    cling: clung
    come: came
    creep: crept
    deal: dealt
    dig: dug
    draw: drew drawn
    dream: dreamt
    drink: drank drunk
    drive: drove driven
    eat: ate eaten
    fall: fell fallen
    feed: fed
    feel: felt
    fight: fought
    find: found
    flee: fled
    fly: flew flown
    forbid: forbade forbidden
    forget: forgot forgotten
    forgive: forgave forgiven
    freeze: froze frozen
    get: got gotten
    give: gave given
    go: went gone
    grow: grew grown
    hang: hung
    hear: heard
    hide: hid hidden
    hold: held
    keep: kept
    kneel: knelt
    know: knew known
    lay: laid
    lead: led
    lean: leant
    leap: leapt
    learn: learnt
    leave: left
    lend: lent
    light: lit
    lose: lost
    make: made
    mean: meant
    meet: met
    mistake: mistook mistaken
    overcome: overcame
    pay: paid
    prove: proven
    rebuild: rebuilt
    ride: rode ridden
    ring: rang rung
    rise: risen
    run: ran
    say: said
    see: saw seen
    seek: sought
    sell: sold
    send: sent
    sew: sewn
    shake: shook shaken
    shine: shone
    shoot: shot
    show: shown
    shrink: shrank shrunk
    sing: sang sung
    sink: sank sunk
    sit: sat
    sleep: slept
    slide: slid
    smell: smelt
    speak: spoke spoken
    speed: sped
    spell: spelt
    spend: spent
    spill: spilt
    spin: spun
    spoil: spoilt
    spring: sprang sprung
    stand: stood
    steal: stole stolen
    stick: stuck
    sting: stung
    strike: struck stricken
    strive: strove striven
    swear: swore sworn
    sweep: swept
    swell: swollen
    swim: swam swum
    swing: swung
    take: took taken
    teach: taught
    tear: tore torn
    tell: told
    think: thought
    throw: threw thrown
    understand: understood
    undertake: undertook undertaken
    undo: undid undone
    wake: woke woken
    wear: wore worn
    weave: wove woven
    weep: wept
    win: won
    withdraw: withdrew withdrawn
    write: wrote written

    calf: calves
    child: children
    foot: feet
    goose: geese
    half: halves
    knife: knives
    life: lives
    loaf: loaves
    man: men
    mouse: mice
    ox: oxen
    person: people
    scarf: scarves
    shelf: shelves
    thief: thieves
    tooth: teeth
    wife: wives
    wolf: wolves
    woman: women
"""

BASE = {
    form: base
    for base, forms in (line.strip().split(": ") for line in _FORMS.split("\n") if line.strip())
    for form in forms.split()
}
