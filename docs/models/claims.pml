/* Claims, leases and generations: at most one host acts, whatever is late, lost, paused or dead.
 *
 * Three hosts (HOSTS), each of which may lead; one workload; a store that takes one transaction after another; a clock.
 * Everything is a choice: which host does what next, when a message is taken in and when it is answered or lost, when
 * a lease ends, when a host looks at the placement, when time passes. What is bounded is how often a host may begin
 * anew (CLAIMS), how often the workload may be placed (PLACED), and LASTS: ttl, drift and the guard's lateness
 * together, in ticks.
 *
 * A leader here knows of claims and reports at once what a real one learns late: it waits from the moment in which the
 * store took the renewal in, the earliest that any watcher could see. What slower watchers may do, it may do as well,
 * so that a rule that holds here holds for them. Placements are looked at as late as may be, by leaders too.
 *
 * The numbers beside the rules are those of ARCHITECTURE.md, "the arithmetic of never two". Each BREAK_... takes one
 * rule away; two hosts that act must then be found (tests/models).
 */

#ifndef HOSTS
#define HOSTS   3
#endif
#define NOBODY  HOSTS

#ifndef LASTS
#define LASTS   2
#endif
#ifndef CLAIMS
#define CLAIMS  2
#endif
#ifndef PLACED
#define PLACED  3
#endif

#ifdef BREAK_WAIT        /* the leader waits a tick less than a claim may last */
#define WAIT    (LASTS - 1)
#else
#define WAIT    LASTS
#endif

/* That the key is gone tells a watcher that it has seen every renewal that there was. */
#ifdef BREAK_GONE        /* waiting is enough, so that the last ones may not have been seen */
#define GONE(host, number)  true
#else
#define GONE(host, number)  !(there[host] && incarnation[host] == number)
#endif

#ifdef BREAK_RESTS       /* a host acts on a placement that names it, whichever claim it rests on */
#define IS_MINE(me, number)  true
#else
#define IS_MINE(me, number)  (number == mine[me])
#endif

#ifdef BREAK_ENDED       /* a host takes up again what it ended */
#define IS_NEW(me)  (seen[me] > 0 && placed_on[seen[me]] == me)
#else
#define IS_NEW(me)  (seen[me] > ended[me] && placed_on[seen[me]] == me)
#endif

#ifdef BREAK_COMPARE     /* the leader writes whatever was placed since it looked */
#define STANDS(me)  true
#else
#define STANDS(me)  (seen[me] == generation)
#endif

/* The reign that a host has seen last has surely ended: by its own host's word, or by its claim's end. */
#define HAD(me)    placed_on[seen[me]]
#define ON(me)     rests_on[seen[me]]
#define ENDED(me)  (stopped[seen[me]] || (GONE(HAD(me), ON(me)) && WAITS(HAD(me), ON(me)) == 0))

#ifdef BREAK_GONE
#define RESTART(ticks)  if :: ticks = WAIT :: skip fi
#else
#define RESTART(ticks)  ticks = WAIT
#endif

#define WAITS(host, number)  wait[(host) * (CLAIMS + 1) + (number)]

/* How far a host's message to the store is. One that its host has given up is as good as lost: it could only make a
 * leader wait longer, or do what the next message does. So is a refusal: its host may give up at any time. */
#define IDLE      0
#define ASKING    1      /* for a claim */
#define RENEWING  2
#define GRANTED   3      /* taken in, not answered yet */
#define RENEWED   4

/* The store. A claim's incarnations are numbered from 1, `there` is its key. Placements by generation, from 1. */
byte incarnation[HOSTS];
bool there[HOSTS];
byte leader = NOBODY;
byte generation;
byte placed_on[PLACED + 1];
byte rests_on[PLACED + 1];
bool stopped[PLACED + 1];          /* the host's own report that it ended that generation */

/* What a host knows. */
byte mine[HOSTS];                  /* its incarnation, 0: none */
byte left[HOSTS];                  /* ticks for which it may act */
byte message[HOSTS];
byte asked[HOSTS];                 /* what is left of LASTS since that message was sent */
byte acts_at[HOSTS];               /* the generation that it acts on, 0: none */
byte ended[HOSTS];                 /* the newest that it ever acted on; its journal keeps it */
byte seen[HOSTS];                  /* the newest placement that it has looked at */

/* Ticks until an incarnation has surely ended, once its key is gone. */
byte wait[HOSTS * (CLAIMS + 1)];   /* WAITS(host, incarnation) */

inline end_claim(host) {           /* the leader's key hangs on its claim's lease */
    there[host] = false;
    if
    :: leader == host -> leader = NOBODY
    :: else
    fi
}

inline over(host) {                /* nothing is under way any more */
    message[host] = IDLE;
    asked[host] = 0
}

inline give_up(host) {             /* it dies, or its time is over: that incarnation is never taken up again */
    if
    :: acts_at[host] > ended[host] -> ended[host] = acts_at[host]
    :: else
    fi;
    acts_at[host] = 0;
    mine[host] = 0;
    left[host] = 0;
    over(host)
}

proctype Host(byte me) {
    do
    /* 1. It asks for a claim, whose key must not be there. */
    :: atomic { mine[me] == 0 && message[me] == IDLE && incarnation[me] < CLAIMS ->
           message[me] = ASKING; asked[me] = LASTS }
    :: atomic { message[me] == ASKING && !there[me] ->
           incarnation[me]++; there[me] = true; WAITS(me, incarnation[me]) = WAIT;
           message[me] = GRANTED }
    :: atomic { message[me] == GRANTED && asked[me] > 0 ->
           mine[me] = incarnation[me]; left[me] = asked[me]; over(me) }

    /* 2. It renews that very incarnation; only a sure success moves its deadline, counted from before it asked. */
    :: atomic { mine[me] != 0 && message[me] == IDLE -> message[me] = RENEWING; asked[me] = LASTS }
    :: atomic { message[me] == RENEWING && there[me] && incarnation[me] == mine[me] ->
           RESTART(WAITS(me, mine[me]));
           message[me] = RENEWED }
#ifdef BREAK_THERE       /* a renewal needs no key, and may make it anew after it was seen to be gone */
    :: atomic { message[me] == RENEWING && !there[me] -> message[me] = RENEWED }
#endif
    :: atomic { message[me] == RENEWED ->
#ifdef BREAK_DEADLINE    /* counted from the answer */
           left[me] = LASTS;
#else
           if :: asked[me] > left[me] -> left[me] = asked[me] :: else fi;
#endif
           over(me) }
    :: atomic { message[me] != IDLE -> over(me) }                                          /* lost, either way */

    /* It dies. */
    :: atomic { mine[me] != 0 || message[me] != IDLE -> give_up(me) }

    /* It looks at the placement. */
    :: atomic { seen[me] != generation -> seen[me] = generation }

    /* It leads while its key stands. */
    :: atomic { leader == NOBODY && mine[me] != 0 && there[me] && incarnation[me] == mine[me] -> leader = me }

    /* 5. The leader places once the old reign has ended, by the host's own word or for certain (4.). The placement
       that it looked at must still stand, and the chosen host's claim must be there. */
    :: atomic { leader == me && STANDS(me) && generation < PLACED && (seen[me] == 0 || ENDED(me)) ->
           generation++;
           if
           :: there[0] -> placed_on[generation] = 0
           :: there[1] -> placed_on[generation] = 1
#if HOSTS > 2
           :: there[2] -> placed_on[generation] = 2
#endif
           fi;
           rests_on[generation] = incarnation[placed_on[generation]] }

    /* 6. It acts on a placement that names it and this very incarnation, at a generation that it never acted on. */
    :: atomic { left[me] > 0 && acts_at[me] == 0 && IS_NEW(me) && IS_MINE(me, rests_on[seen[me]]) ->
           acts_at[me] = seen[me];
           assert(acts_at[(me + 1) % HOSTS] == 0 && acts_at[(me + HOSTS - 1) % HOSTS] == 0) }

    /* It ends it in order, and then says so. What it said it never takes back. */
    :: atomic { acts_at[me] != 0 ->
           stopped[acts_at[me]] = true;
#ifndef BREAK_REPORT     /* it says so before it is so */
           ended[me] = acts_at[me];
           acts_at[me] = 0
#endif
       }
    od
}

inline guarded(host) {             /* 3. the guard ends, in time, what the host may not do any more */
    if :: asked[host] > 0 -> asked[host]-- :: else fi;
#ifndef BREAK_GUARD      /* nobody ends it */
    if
    :: left[host] > 0 ->
        left[host]--;
        if :: left[host] == 0 -> give_up(host) :: else fi
    :: else
    fi
#endif
}

/* Leases end when they like, or the leader deletes a key; and time passes. */
active proctype World() {
    byte i;
    do
    :: atomic { there[0] -> end_claim(0) }
    :: atomic { there[1] -> end_claim(1) }
#if HOSTS > 2
    :: atomic { there[2] -> end_claim(2) }
#endif
    :: d_step {
           guarded(0);
           guarded(1);
#if HOSTS > 2
           guarded(2);
#endif
           do
           :: i < HOSTS * (CLAIMS + 1) -> if :: wait[i] > 0 -> wait[i]-- :: else fi; i++
           :: else -> break
           od;
           i = 0 }
    od
}

init {
#if HOSTS > 2
    atomic { run Host(0); run Host(1); run Host(2) }
#else
    atomic { run Host(0); run Host(1) }
#endif
}
