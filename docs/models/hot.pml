/* A hot machine's pair: whoever goes on has all that was ever heard, and nobody else is heard any more.
 *
 * Three hosts, of which one runs the machine and another follows it; a leader that names the next to follow; a store.
 * The machine's state is the number of its newest epoch. What may be late, lost or in any order: epochs on their way,
 * acknowledgements, looks at the store, either side's belief that the other is gone, a host's death. What is bounded is
 * how many epochs are cut (EPOCHS), how often a host begins to follow (PAIRINGS) and takes over (REIGNS).
 *
 * Claims are left out: a host whose claim ends is one that dies here. Two that run at once are allowed, as they are in
 * fact; that two are heard is what must never be. Names are those of ARCHITECTURE.md, "who acts when the two lose each
 * other". Each BREAK_... takes one rule away; an assertion must then fail (tests/models).
 */

#define HOSTS  3
#define NONE   HOSTS

#ifndef EPOCHS
#define EPOCHS    3
#endif
#ifndef PAIRINGS
#define PAIRINGS  2
#endif
#ifndef REIGNS
#define REIGNS    2
#endif

#ifdef BREAK_COMPARE     /* a record is written over, whatever was written since it was looked at */
#define STANDS(me)  true
#else
#define STANDS(me)  (view[me].revision == now_is.revision)
#endif

#ifdef BREAK_PAIRED      /* a standby takes over though it holds no whole epoch of this pairing */
#define IS_PAIRED(me)  true
#else
#define IS_PAIRED(me)  view[me].paired
#endif

#define FOLLOWS(me)  (follows[me] != 0 && view[me].pairing == follows[me])

#ifdef BREAK_CLOSED      /* a standby takes in epochs after it has missed its primary */
#define IS_OPEN(me)  true
#else
#define IS_OPEN(me)  !closed[me]
#endif

#ifdef BREAK_HOLD        /* a primary lets out what is not acknowledged */
#define MAY_SAY(me)  (cut[me] > said[me])
#else
#define MAY_SAY(me)  (cut[me] > said[me] && (feeds[me] == 0 || acknowledged[me] > said[me]))
#endif

#ifdef BREAK_AGAIN       /* one that lost what it had begins again in the same pairing */
#define IS_NEW(me)  (follows[me] < view[me].pairing)
#else
#define IS_NEW(me)  (followed[me] < view[me].pairing)
#endif

typedef Placement {
    byte revision;
    byte host;
    byte generation;
    byte standby;
    byte pairing;
    bool paired;
};
Placement now_is;                  /* in the store */
Placement view[HOSTS];             /* as each host looked at it last */

/* A primary. */
byte runs_at[HOSTS];               /* the generation, 0: it does not run */
byte feeds[HOSTS];                 /* the pairing whose acknowledgements it holds its output for, 0: it goes alone */
byte cut[HOSTS];
byte acknowledged[HOSTS];
byte said[HOSTS];

/* A standby. */
byte follows[HOSTS];               /* the pairing, 0: none */
byte followed[HOSTS];              /* the newest that it ever began */
byte whole[HOSTS];                 /* its newest whole epoch, 0: none */
bool closed[HOSTS];                /* it has missed its primary */

byte heard;                        /* the newest epoch that the world was told of */
byte taken_over_at;                /* the newest generation that went on from an epoch */
byte from_epoch;                   /* which */
byte pairings;

inline look(me) {
    view[me].revision = now_is.revision;
    view[me].host = now_is.host;
    view[me].generation = now_is.generation;
    view[me].standby = now_is.standby;
    view[me].pairing = now_is.pairing;
    view[me].paired = now_is.paired
}

inline halt(me) {
    runs_at[me] = 0; feeds[me] = 0; cut[me] = 0; acknowledged[me] = 0; said[me] = 0
}

inline discard(me) {
    follows[me] = 0; whole[me] = 0; closed[me] = false
}

#define IS_SOURCE(other, me)  (runs_at[other] != 0 && feeds[other] == follows[me] && other != me)

inline receive(other, me) {        /* the next epoch; the first carries all that there is */
    if
    :: whole[me] == 0 -> whole[me] = cut[other]
    :: else -> whole[me]++
    fi
}

proctype Host(byte me) {
    do
    :: atomic { view[me].revision != now_is.revision -> look(me) }

    /* A primary cuts epochs, sends them, and says what may be said. */
    :: atomic { runs_at[me] != 0 && cut[me] < EPOCHS -> cut[me]++ }
    :: atomic { runs_at[me] != 0 && MAY_SAY(me) ->
           said[me]++;
           assert(runs_at[me] >= taken_over_at || said[me] <= from_epoch);
           if :: said[me] > heard -> heard = said[me] :: else fi }

    /* It begins to feed the standby that it is told of, and holds its output from then on. */
    :: atomic { runs_at[me] != 0 && runs_at[me] == view[me].generation && view[me].host == me && view[me].standby != NONE && feeds[me] < view[me].pairing ->
           feeds[me] = view[me].pairing; acknowledged[me] = 0 }

    /* Its standby's acknowledgements come in. */
    :: atomic { runs_at[me] != 0 && feeds[me] != 0 && follows[(me + 1) % HOSTS] == feeds[me] && whole[(me + 1) % HOSTS] > acknowledged[me] -> acknowledged[me] = whole[(me + 1) % HOSTS] }
    :: atomic { runs_at[me] != 0 && feeds[me] != 0 && follows[(me + 2) % HOSTS] == feeds[me] && whole[(me + 2) % HOSTS] > acknowledged[me] -> acknowledged[me] = whole[(me + 2) % HOSTS] }

    /* Once one is whole it says so in the store. */
    :: atomic { runs_at[me] != 0 && acknowledged[me] != 0 && view[me].pairing == feeds[me] && !view[me].paired && view[me].host == me && STANDS(me) ->
           now_is.revision++; now_is.paired = true; look(me) }

    /* It misses its standby, and asks the store to go on alone. */
    :: atomic { runs_at[me] != 0 && feeds[me] != 0 && view[me].host == me && view[me].pairing == feeds[me] && view[me].generation == runs_at[me] && STANDS(me) ->
#ifndef BREAK_ASK        /* it goes on without asking */
           now_is.revision++; now_is.standby = NONE; now_is.paired = false; look(me);
#endif
           feeds[me] = 0; acknowledged[me] = 0 }

    /* It finds that another has taken over. */
    :: atomic { runs_at[me] != 0 && view[me].generation > runs_at[me] -> halt(me) }

    /* A standby begins to follow, and takes epochs in. */
    :: atomic { view[me].standby == me && IS_NEW(me) && runs_at[me] == 0 ->
           discard(me); follows[me] = view[me].pairing; followed[me] = follows[me] }
    :: atomic { follows[me] != 0 && IS_OPEN(me) && IS_SOURCE((me + 1) % HOSTS, me) && cut[(me + 1) % HOSTS] > whole[me] -> receive((me + 1) % HOSTS, me) }
    :: atomic { follows[me] != 0 && IS_OPEN(me) && IS_SOURCE((me + 2) % HOSTS, me) && cut[(me + 2) % HOSTS] > whole[me] -> receive((me + 2) % HOSTS, me) }

    /* It misses its primary, takes nothing in any more, and asks the store to take over. */
    :: atomic { follows[me] != 0 && !closed[me] -> closed[me] = true }
    :: atomic { closed[me] && FOLLOWS(me) && view[me].standby == me && IS_PAIRED(me) && STANDS(me) && now_is.generation < REIGNS ->
           now_is.revision++; now_is.generation++; now_is.host = me; now_is.standby = NONE; now_is.paired = false;
           look(me);
           assert(whole[me] >= heard);
           taken_over_at = now_is.generation; from_epoch = whole[me];
           runs_at[me] = now_is.generation; cut[me] = whole[me]; said[me] = heard;
           feeds[me] = 0; acknowledged[me] = 0;
#ifndef BREAK_CLOSED
           discard(me)
#endif
       }

    /* It is told that it does not follow any more; or it dies, as either. */
    :: atomic { follows[me] != 0 && (view[me].standby != me || view[me].pairing != follows[me]) -> discard(me) }
    :: atomic { runs_at[me] != 0 || follows[me] != 0 -> halt(me); discard(me) }
    od
}

/* The leader names the next to follow; it compares as well, and so writes what stands. */
active proctype Leader() {
    do
    :: atomic { now_is.standby == NONE && pairings < PAIRINGS ->
           pairings++; now_is.revision++; now_is.pairing++; now_is.paired = false;
           if
           :: now_is.host != 0 -> now_is.standby = 0
           :: now_is.host != 1 -> now_is.standby = 1
           :: now_is.host != 2 -> now_is.standby = 2
           fi }
    od
}

init {
    atomic {
        now_is.standby = NONE; now_is.generation = 1; now_is.revision = 1; runs_at[0] = 1;
        run Host(0); run Host(1); run Host(2)
    }
}
