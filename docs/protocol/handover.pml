/*
 * The handover of one machine between three hosts, as docs/protocol/handover.md has it. See docs/protocol/model.md.
 *
 * One process for each host plays whichever of its agents has the machine's journal in hand; `world` plays everybody
 * else: drivers, the operator, faults. Every option below is one step that happens or not, at any time; what it needs
 * is its guard. An agent remembers nothing between two steps that its journal does not say, but for `live`.
 *
 * A message is not an object here. Whatever a journal once said may be heard at any later time, any number of times, or
 * never: that is loss, delay, duplication and reordering. What stays true for good is read from the sender's journal;
 * what may have ceased to be true is remembered in `attempt` as once sent. When the links have healed (`healed`), all
 * of that is lost, and only what a journal says now is heard.
 *
 * Bounds and removed rules are read from the environment, so that one compiled checker serves every run.
 */

c_decl {
\#include <stdlib.h>
static unsigned long long without, watch;
static int witness;
static int bound(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
__attribute__((constructor)) static void read_rules(void) {
    const char *text = getenv("WITHOUT");
    without = text ? strtoull(text, 0, 0) : 0;
    witness = bound("WITNESS");
    text = getenv("WATCH");
    watch = text ? strtoull(text, 0, 0) : ~0ULL;
}
enum { none, never_two_running, never_on_missed_writes, never_freed_the_last, never_contradictory, never_an_old_driver, ends_as_the_table_says, counts_in_bounds, can_be_seen };
}

/* Rules that a run may remove: the checker must then find an error. tools/check_model.py reads names and bits here. */
#define NO(bit) c_expr { ((without >> bit) & 1) }
#define NO_ABORTED_FIRST NO(0)
#define NO_CONTROLLER_FENCE NO(1)
#define NO_COMPARE_AND_APPEND NO(2)
#define NO_SECRET_AFTER_RELEASED NO(3)
#define NO_SECRET_BOUND NO(4)
#define NO_ACTIVATING_FIRST NO(5)
#define NO_IMAGE_KEPT NO(6)
#define NO_ATTEMPT_MATCH NO(7)
#define NO_EPOCH_MATCH NO(8)
#define NO_DISCARD_ON_PROOF NO(9)
#define NO_TERM NO(10)
#define NO_TERM_AT_SOURCE_FIRST NO(11)
#define NO_FORMER_RETIRED NO(12)
#define NO_RUN_STATE_CONFIRMED NO(13)
#define NO_RUN_STATE_JOURNALLED NO(14)
#define NO_PROCESS_AT_RELEASED NO(15)
#define NO_PROCESS_AT_ABORTED NO(16)
#define NO_PAUSE_MATCH NO(17)
#define NO_LOST_ONLY_GONE NO(18)
#define NO_ARRIVAL_LOST_ONLY_GONE NO(19)
#define NO_MISSING_IS_UNREACHABLE NO(20)
#define NO_WHOLE_KEPT NO(21)
#define NO_OWN_REFUSAL NO(22)
#define NO_EPOCH_BURNT NO(23)
#define NO_STOPPED_FIRST NO(24)
#define NO_STOPPED_ASKS NO(25)
#define NO_RECLAIMED_ON_LOST NO(26)
#define NO_LOST_BY_LOOKING NO(27)
#define NO_INSTANCE_NAMED NO(28)
#define NO_ONE_ATTEMPT NO(29)
#define NO_READY_FIRST NO(30)
#define NO_DISCARDED_FINAL NO(31)
#define NO_VOUCHED_OFF NO(32)
#define NO_TAKEN_NEWEST NO(33)
#define NO_TAKEN_TOLD_TO_ALL NO(34)
#define NO_DEAD_COPY_YIELDS NO(35)
#define NO_PROCESS_RELEASED_FIRST NO(36)

#define NOTHING 0
#define OWNER 1
#define OUTGOING 2
#define STOPPED 3
#define RELEASED 4
#define RETIRED 5
#define ABORTED 6
#define RECLAIMED 7
#define PREPARED 8
#define READY 9
#define ACTIVATING 10
#define ACTIVE 11
#define DISCARDED 12
#define LOST 13
#define TAKEN 14

/* What an agent that was frozen had decided and not done, when the next life of it opened the journal. */
#define NO_COMMAND 0
#define RUN 1
#define PAUSE 2
#define FREE 3
#define APPEND_ABORTED 4
#define APPEND_RELEASED 5
#define APPEND_ACTIVATING 6
#define APPEND_READY 7

typedef Host {
    /* the journal's last record */
    unsigned state : 4;
    unsigned attempt : 2;
    unsigned highest : 4;
    unsigned owned : 4;
    unsigned pause : 2;
    unsigned whole : 1;
    unsigned term : 2;
    unsigned run_confirmed : 1;
    unsigned former_retired : 1;
    unsigned was_running : 1;
    /* the agent */
    unsigned live : 1;       /* the life that began, or prepared, the attempt: an agent's memory is lost with it */
    unsigned attached : 1;   /* the process is attached to the journal's controller */
    unsigned off : 1;        /* the operator vouches for it; the host returns later, without its process */
    /* the machine's process */
    unsigned alive : 1;
    unsigned runs : 1;
    unsigned released : 4;   /* its own fence: it never runs at this epoch or below */
    unsigned stop : 2;       /* the last stop of its guest */
    unsigned fresh : 1;      /* its memory misses no write that any guest made */
    /* an agent's earlier life, frozen */
    unsigned frozen : 3;     /* the command that it is about to give */
    unsigned commands : 1;   /* the process is still attached to it */
    unsigned of_attempt : 2;
    unsigned of_epoch : 4;
};

typedef Attempt {
    unsigned source : 2;
    unsigned destination : 2;
    unsigned epoch : 4;
    unsigned pause : 2;      /* the stop whose last delta was sent; 0 before */
    unsigned fresh : 1;      /* that delta misses no write */
    unsigned ready : 1;      /* READY was once answered */
    unsigned given : 1;      /* the source once journalled RELEASED */
    unsigned secret : 1;     /* the secret has once left the source */
};

Host host[3];
#ifdef THIRD_ATTEMPT
#define EACH_ATTEMPT(what) what(1) what(2) what(3)
#define ATTEMPTS 4
#else
#define EACH_ATTEMPT(what) what(1) what(2)
#define ATTEMPTS 3
#endif
Attempt attempt[ATTEMPTS];   /* attempt 0 is none */
unsigned begun : 2;          /* attempts that were begun */
unsigned driver : 2;         /* the highest term that an orchestrator has drawn for the latest attempt */
unsigned attempts : 2;       /* what may still happen */
unsigned takeovers : 2;
unsigned restarts : 3;
unsigned freezes : 2;
unsigned deaths : 3;
unsigned vouchers : 2;
bit cancels;
bit operator;
bit healed;
bit undecided;               /* a process was killed while its journal said ACTIVATING */
bit died;                    /* the process of the machine's owner was killed, as may happen at any time */

#define h host[_pid]
#define at(k) attempt[k]
#define mine attempt[h.attempt]
#define peer_source host[mine.source]
#define peer_destination host[mine.destination]
#define NAME(i) ('A' + (i))

#define OWNS(i) (host[i].state == OWNER || host[i].state == ACTIVE || host[i].state == ABORTED || \
                 host[i].state == RECLAIMED || host[i].state == TAKEN)
#define LEAVING(i) (host[i].state == OUTGOING || host[i].state == STOPPED || host[i].state == RELEASED)
#define ARRIVING(i) (host[i].state == PREPARED || host[i].state == READY || host[i].state == ACTIVATING)
#define OPEN(i) (LEAVING(i) || ARRIVING(i))

/* How a journal answers about attempt k, also one that it has left behind: `evidence.view`. */
#define HELD(i, k) (host[i].state != NOTHING && host[i].attempt == (k))
#define SIGHT(i, k, s) (HELD(i, k) && host[i].state == (s))
#define LEFT(i, k) (host[i].state != NOTHING && host[i].attempt != (k))
#define GAVE_AWAY(i, k) (at(k).source == (i) && at(k).given)
#define IS_ABOVE(i, k) (LEFT(i, k) && host[i].owned > at(k).epoch)
#define IS_ACTIVE(i, k) (SIGHT(i, k, ACTIVE) || (LEFT(i, k) && host[i].owned == at(k).epoch))
#define IS_RETIRED(i, k) (SIGHT(i, k, RETIRED) || (LEFT(i, k) && host[i].owned < at(k).epoch && GAVE_AWAY(i, k)))
#define IS_PASSED(i, k) (LEFT(i, k) && host[i].owned < at(k).epoch && !GAVE_AWAY(i, k) && \
                         host[i].highest > at(k).epoch)
#define IS_TAKEN(i, k) (SIGHT(i, k, TAKEN) || IS_ABOVE(i, k))
/* Whether this host's copy retires on another's TAKEN, whatever attempt either has. A copy that has its process retires
   only for an owner that has its process, at a higher epoch; one without can never run again, and retires for any. */
#define OUTRANKS(i) (i != _pid && UP(i) && \
    (i == mine.source || i == mine.destination || !NO_TAKEN_TOLD_TO_ALL) && ( \
    ((host[i].state == TAKEN || IS_ABOVE(i, h.attempt)) && host[i].owned > h.owned && host[i].owned > mine.epoch && \
     (!h.alive || NO_DEAD_COPY_YIELDS || (host[i].alive && OWNS(i)))) || \
    (!NO_DEAD_COPY_YIELDS && !h.alive && \
     (host[i].state == TAKEN || (i == mine.destination && SIGHT(i, h.attempt, RETIRED))))))
#define OUTRANKED (OUTRANKS(0) || OUTRANKS(1) || OUTRANKS(2))
#define ENDED(i, k) (SIGHT(i, k, ABORTED) || SIGHT(i, k, LOST) || IS_TAKEN(i, k) || IS_PASSED(i, k))

/* A message about attempt k is for this journal: it names the attempt and the epoch that stand there. */
#define MATCHES(k) ((h.attempt == (k) || NO_ATTEMPT_MATCH) && (mine.epoch == at(k).epoch || NO_EPOCH_MATCH))
/* The source's calls carry its term as a driver's do, and are refused where the destination has heard a higher one. */
#define ADMITTED (!HELD(mine.source, h.attempt) || peer_source.term >= h.term)
#define UP(i) (!host[i].off)

#define SAYS_READY(k) (healed -> (SIGHT(at(k).destination, k, READY) && UP(at(k).destination)) : at(k).ready)
#define SECRET_SENT(k) (healed -> (SIGHT(at(k).source, k, RELEASED) && UP(at(k).source) && \
                                   MAY_HAND_OFF(at(k).source)) : at(k).secret)
/* The process has confirmed that it never runs at this epoch, or is gone. */
#define MAY_HAND_OFF(i) (!host[i].alive || host[i].released >= attempt[host[i].attempt].epoch || \
                         NO_PROCESS_RELEASED_FIRST)
#define STANDS_AT(i) (host[i].alive && host[i].attached && !host[i].runs && host[i].stop == host[i].pause)

#define SEEN(i) (UP(i) -> host[i].highest : 0)
#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* What must hold. A run that stops names the property; WATCH may leave some out, to see what a broken rule leads to. */
#define REQUIRE(condition, property) \
    if :: condition || !c_expr { ((watch >> property) & 1) } -> skip :: else -> assert(c_expr { !property }) fi

#define GOES_STALE(k) attempt[k].fresh = 0;
#define IS_FORGOTTEN(k) attempt[k].ready = 0; attempt[k].secret = 0;

/* A guest starts: property 1 and property 2. From here on every other copy misses writes. */
inline start_guest() {
    REQUIRE((!host[0].runs && !host[1].runs && !host[2].runs), never_two_running);
    REQUIRE(h.fresh, never_on_missed_writes);
    h.runs = 1;
    host[0].fresh = 0; host[1].fresh = 0; host[2].fresh = 0;
    EACH_ATTEMPT(GOES_STALE)
    h.fresh = 1;
}

/* An agent's life ends; what it held in memory goes with it, and an image that is not READY is no longer whole. */
inline restart() {
    h.live = 0; h.attached = 0;
    if
    :: h.state == PREPARED -> h.fresh = 0
    :: else
    fi
}

/* The same, but it was only frozen, about to do `what`; its command is the process's to refuse once another attached. */
#define FREEZES(what, when, at_epoch) \
    :: d_step { !healed && freezes > 0 && UP(_pid) && (when) -> \
        freezes--; h.frozen = what; h.of_attempt = h.attempt; h.of_epoch = at_epoch; h.commands = 1; restart(); \
        printf("| %c: agent freezes, about to give command %d\n", NAME(_pid), what) }

#define WHOLE(i) (host[i].alive && host[i].fresh)
#define HOLDS_MACHINE(i) (host[i].alive && host[i].fresh && (OWNS(i) || LEAVING(i) || host[i].state == ACTIVATING))

/* An image is freed: property 3. */
inline free_image() {
    REQUIRE((!h.fresh || died || (_pid != 0 && HOLDS_MACHINE(0)) || (_pid != 1 && HOLDS_MACHINE(1)) ||
             (_pid != 2 && HOLDS_MACHINE(2))), never_freed_the_last);
    end_process(_pid);
}

inline end_process(i) {
    host[i].alive = 0; host[i].runs = 0; host[i].fresh = 0; host[i].released = 0; host[i].stop = 0; host[i].attached = 0;
    host[i].commands = 0;
    if
    :: host[i].frozen == FREE && !NO_INSTANCE_NAMED -> host[i].frozen = NO_COMMAND  /* its instance is gone */
    :: host[i].frozen == RUN && !NO_CONTROLLER_FENCE -> host[i].frozen = NO_COMMAND
    :: host[i].frozen == PAUSE && !NO_CONTROLLER_FENCE -> host[i].frozen = NO_COMMAND
    :: else
    fi
}

/* A process is killed. Where the machine was its owner's, it dies as any machine may, and no rule promises to save it. */
inline die() {
    end_process(_pid);
    died = died || OWNS(_pid) || (h.state == OUTGOING && !WHOLE(0) && !WHOLE(1) && !WHOLE(2));
    undecided = undecided || h.state == ACTIVATING;
}

inline begin(d) {
    begun++; attempts--; driver = 1;
    at(begun).source = _pid; at(begun).destination = d; at(begun).epoch = h.highest + 1;
    h.highest = h.highest + 1;
    REQUIRE((h.highest < 15), counts_in_bounds);
    h.state = OUTGOING; h.attempt = begun; h.whole = 0; h.term = 1; h.run_confirmed = 0; h.live = 1;
    if
    :: NO_RUN_STATE_JOURNALLED -> h.was_running = h.runs
    :: else
    fi;
    if
    :: NO_SECRET_AFTER_RELEASED -> at(begun).secret = 1
    :: else
    fi;
    printf("| %c: begins attempt %d to %c at epoch %d\n", NAME(_pid), begun, NAME(d), h.highest);
}

#define MAY_BEGIN (!healed && attempts > 0 && h.alive && h.attached && ( \
    (OWNS(_pid) && (h.former_retired || NO_FORMER_RETIRED) && (h.run_confirmed || NO_RUN_STATE_CONFIRMED)) || \
    (NO_ONE_ATTEMPT && LEAVING(_pid))))

#define MAY_PREPARE(k) (!healed && begun >= k && at(k).destination == _pid && !h.alive && \
    ((!OPEN(_pid) && !OWNS(_pid) && at(k).epoch > h.highest) || \
     (NO_DISCARDED_FINAL && h.state == DISCARDED && h.attempt == k)))

inline prepare(k) {
    h.state = PREPARED; h.attempt = k; h.highest = at(k).epoch; h.pause = 0; h.whole = 0; h.run_confirmed = 0;
    h.former_retired = 0; h.was_running = 0; h.live = 1; h.attached = 1; h.term = 1;
    h.alive = 1; h.fresh = 0; h.released = 0; h.stop = 0;
    printf("| %c: prepares for attempt %d\n", NAME(_pid), k);
}

inline release(k) {
    h.state = RELEASED; at(h.attempt).given = 1;
    printf("| %c: journals RELEASED for attempt %d\n", NAME(_pid), h.attempt);
}

inline reclaim() {
    h.state = RECLAIMED; h.highest = h.highest + 1; h.owned = h.highest; h.former_retired = 1; h.run_confirmed = 0;
    REQUIRE((h.highest < 15), counts_in_bounds);
    printf("| %c: journals RECLAIMED at epoch %d\n", NAME(_pid), h.owned);
}

inline abort_attempt(why) {
    h.state = ABORTED; h.run_confirmed = 0;
    if
    :: NO_EPOCH_BURNT && h.highest == mine.epoch -> h.highest = h.highest - 1
    :: else
    fi;
    printf("| %c: journals ABORTED for attempt %d\n", NAME(_pid), h.attempt);
}

#define WRITE(s) h.state = s; printf("| %c: journals state %d for attempt %d\n", NAME(_pid), s, h.attempt)

/* What the source of attempt k may hear and what follows: `recovery.decide`, with the source's journal in hand. */
#define SOURCE_HEARS(k) \
    :: d_step { h.state == STOPPED && begun >= k && UP(_pid) && SAYS_READY(k) && MATCHES(k) && \
                (at(k).pause == h.pause || NO_PAUSE_MATCH) && \
                (STANDS_AT(_pid) || !h.alive || NO_PROCESS_AT_RELEASED) -> release(k) } \
    :: d_step { begun >= k && UP(_pid) && UP(at(k).destination) && MATCHES(k) && h.state == RELEASED && \
                (IS_ACTIVE(at(k).destination, k) || IS_ABOVE(at(k).destination, k)) -> WRITE(RETIRED) } \
    :: d_step { begun >= k && UP(_pid) && MATCHES(k) && h.state == RELEASED && h.alive && h.attached && \
                ((UP(at(k).destination) && SIGHT(at(k).destination, k, LOST)) || NO_RECLAIMED_ON_LOST) -> reclaim() } \
    :: d_step { begun >= k && UP(_pid) && UP(at(k).destination) && MATCHES(k) && h.state == RELEASED && !h.alive && \
                SIGHT(at(k).destination, k, LOST) -> WRITE(LOST) } \
    :: d_step { begun >= k && UP(_pid) && MATCHES(k) && h.state == STOPPED && !h.alive && \
                (NO_STOPPED_ASKS || (UP(at(k).destination) && (SIGHT(at(k).destination, k, DISCARDED) || \
                 SIGHT(at(k).destination, k, LOST) || IS_PASSED(at(k).destination, k) || \
                 NO_MISSING_IS_UNREACHABLE))) -> WRITE(LOST) }

/* The same for its destination. */
#define DESTINATION_HEARS(k) \
    :: d_step { MAY_PREPARE(k) && UP(_pid) -> prepare(k) } \
    :: d_step { begun >= k && UP(_pid) && h.state == READY && SECRET_SENT(k) && ADMITTED && \
                ((MATCHES(k) && h.attempt == k) || NO_SECRET_BOUND) && \
                (h.pause == at(k).pause || NO_PAUSE_MATCH) && (h.alive || NO_LOST_BY_LOOKING) && \
                !NO_ACTIVATING_FIRST -> WRITE(ACTIVATING) } \
    :: d_step { begun >= k && UP(_pid) && at(k).destination == _pid && (h.state == PREPARED || h.state == READY) && \
                UP(at(k).source) && ADMITTED && MATCHES(k) && ENDED(at(k).source, k) -> WRITE(DISCARDED) }

active [3] proctype agents() {
end: do
    /* Either agent of a host, in a new life: it opens the journal, then attaches the process. */
    :: d_step { h.alive && !h.attached && UP(_pid) && h.state != NOTHING ->
        h.attached = 1; h.commands = 0;
        if
        :: (h.frozen == RUN || h.frozen == PAUSE) && !NO_CONTROLLER_FENCE -> h.frozen = NO_COMMAND
        :: else
        fi;
        printf("| %c: attaches its process\n", NAME(_pid)) }

    /* The source. */
    :: d_step { MAY_BEGIN && UP(_pid) -> begin((_pid + 1) % 3) }
    :: d_step { MAY_BEGIN && begun > 0 && UP(_pid) -> begin((_pid + 2) % 3) }
    :: d_step { h.state == OUTGOING && h.live && h.alive && h.attached && h.runs && UP(_pid) &&
                SIGHT(mine.destination, h.attempt, PREPARED) ->
        h.runs = 0; h.stop++; printf("| %c: pauses the guest, stop %d\n", NAME(_pid), h.stop);
        if
        :: NO_STOPPED_FIRST -> mine.pause = h.stop; mine.fresh = h.fresh
        :: else
        fi }
    :: d_step { h.state == OUTGOING && h.live && h.alive && h.attached && !h.runs && UP(_pid) &&
                SIGHT(mine.destination, h.attempt, PREPARED) ->
        h.pause = h.stop; mine.pause = h.stop; mine.fresh = h.fresh; WRITE(STOPPED) }
    EACH_ATTEMPT(SOURCE_HEARS)
    :: d_step { h.state == RELEASED && h.alive && h.attached && h.released < mine.epoch && !h.runs && UP(_pid) ->
        h.released = mine.epoch; printf("| %c: tells its process release(%d)\n", NAME(_pid), h.released) }
    :: d_step { h.state == RELEASED && UP(_pid) && !healed && !mine.secret && MAY_HAND_OFF(_pid) ->
        mine.secret = 1; printf("| %c: sends the secret of attempt %d\n", NAME(_pid), h.attempt) }
    :: d_step { h.state == OUTGOING && UP(_pid) && h.alive -> abort_attempt(0) }
    :: d_step { h.state == STOPPED && UP(_pid) && ((h.alive && h.attached) || NO_PROCESS_AT_ABORTED) -> abort_attempt(0) }
    :: d_step { h.state == STOPPED && NO_ABORTED_FIRST && h.alive && h.attached && !h.runs && UP(_pid) ->
        start_guest(); printf("| %c: resumes the guest, nothing journalled\n", NAME(_pid)) }
    :: d_step { h.state == OUTGOING && UP(_pid) && (!h.alive || NO_LOST_ONLY_GONE) -> WRITE(LOST) }
    :: d_step { (h.state == ABORTED || h.state == RECLAIMED) && UP(_pid) && !h.alive -> WRITE(LOST) }
    :: d_step { (h.state == ABORTED || h.state == RECLAIMED || h.state == TAKEN) && !h.run_confirmed && h.alive &&
                h.attached && h.was_running && !h.runs && (h.owned > h.released || NO_OWN_REFUSAL) && UP(_pid) ->
        start_guest(); printf("| %c: resumes the guest\n", NAME(_pid)) }
    :: d_step { (h.state == ABORTED || h.state == RECLAIMED || h.state == TAKEN) && !h.run_confirmed && h.alive &&
                h.attached && h.runs == h.was_running && UP(_pid) ->
        h.run_confirmed = 1; printf("| %c: run state confirmed\n", NAME(_pid)) }

    /* The destination. */
    EACH_ATTEMPT(DESTINATION_HEARS)
    :: d_step { h.state == PREPARED && !h.whole && h.live && h.alive && mine.pause != 0 && UP(_pid) && ADMITTED &&
                (!healed || (SIGHT(mine.source, h.attempt, STOPPED) && peer_source.live && peer_source.alive)) ->
        h.whole = 1; h.pause = mine.pause; h.stop = mine.pause; h.fresh = mine.fresh;
        h.was_running = peer_source.was_running;
        printf("| %c: holds the whole last delta of stop %d\n", NAME(_pid), h.pause) }
    :: d_step { h.state == PREPARED && (h.whole || NO_READY_FIRST) && h.live && h.alive && UP(_pid) ->
        mine.ready = 1; WRITE(READY) }
    :: d_step { h.state == READY && NO_ACTIVATING_FIRST && SECRET_SENT(h.attempt) && h.alive && h.attached && !h.runs &&
                UP(_pid) -> start_guest(); printf("| %c: starts the guest, nothing journalled\n", NAME(_pid)) }
    :: d_step { h.state == READY && NO_ACTIVATING_FIRST && h.alive && h.runs && UP(_pid) ->
        WRITE(ACTIVATING) }
    :: d_step { h.state == ACTIVATING && h.alive && h.attached && !h.runs && h.was_running && (mine.epoch > h.released || NO_OWN_REFUSAL) &&
                UP(_pid) -> start_guest(); printf("| %c: starts the guest\n", NAME(_pid)) }
    :: d_step { h.state == ACTIVATING && h.alive && h.attached && h.runs == h.was_running && UP(_pid) ->
        h.owned = mine.epoch; h.run_confirmed = 1; WRITE(ACTIVE) }
    :: d_step { h.state == PREPARED && UP(_pid) && (!h.whole || NO_WHOLE_KEPT) && h.alive ->
        WRITE(DISCARDED) }
    :: d_step { h.state == PREPARED && UP(_pid) && h.whole && !h.live && h.alive && UP(mine.source) && ADMITTED &&
                SIGHT(mine.source, h.attempt, STOPPED) && !peer_source.alive ->
        WRITE(DISCARDED) }
    :: d_step { h.state == READY && UP(_pid) && NO_DISCARD_ON_PROOF -> WRITE(DISCARDED) }
    :: d_step { (h.state == PREPARED || h.state == READY) && UP(_pid) && (!h.alive || NO_ARRIVAL_LOST_ONLY_GONE) ->
        WRITE(LOST) }
    :: d_step { h.state == ACTIVE && !h.former_retired && UP(_pid) && UP(mine.source) && ADMITTED &&
                IS_RETIRED(mine.source, h.attempt) ->
        h.former_retired = 1; printf("| %c: heard that %c retired\n", NAME(_pid), NAME(mine.source)) }
    /* Both. */
    :: d_step { (LEAVING(_pid) || OWNS(_pid) || h.state == ACTIVATING) && UP(_pid) && OUTRANKED ->
        h.highest = MAX(h.highest, MAX(SEEN(0), MAX(SEEN(1), SEEN(2)))); h.runs = 0; WRITE(RETIRED) }
    :: d_step { h.alive && UP(_pid) && (h.state == RETIRED || h.state == DISCARDED || h.state == LOST ||
                (h.state == RELEASED && NO_IMAGE_KEPT)) ->
        free_image(); printf("| %c: frees its image\n", NAME(_pid)) }

    /* A frozen agent thaws. Its appends are refused by the comparison, its commands by the process. */
    :: d_step { h.frozen == RUN && h.alive && !h.runs && (h.commands || NO_CONTROLLER_FENCE) && (h.of_epoch > h.released || NO_OWN_REFUSAL) ->
        h.frozen = NO_COMMAND; printf("| %c: a thawed agent starts the guest\n", NAME(_pid)); start_guest() }
    :: d_step { h.frozen == PAUSE && h.alive && h.runs && (h.commands || NO_CONTROLLER_FENCE) ->
        h.frozen = NO_COMMAND; h.runs = 0; h.stop++; printf("| %c: a thawed agent pauses the guest\n", NAME(_pid)) }
    :: d_step { h.frozen == FREE && h.alive ->
        h.frozen = NO_COMMAND; printf("| %c: a thawed agent frees the image\n", NAME(_pid)); free_image() }
    :: d_step { h.frozen == APPEND_ABORTED && NO_COMPARE_AND_APPEND ->
        h.attempt = h.of_attempt; h.frozen = NO_COMMAND; printf("| %c: a thawed agent appends what it had decided\n", NAME(_pid)); abort_attempt(0) }
    :: d_step { h.frozen == APPEND_RELEASED && NO_COMPARE_AND_APPEND ->
        h.attempt = h.of_attempt; h.frozen = NO_COMMAND; printf("| %c: a thawed agent appends what it had decided\n", NAME(_pid)); release(0) }
    :: d_step { h.frozen == APPEND_ACTIVATING && NO_COMPARE_AND_APPEND ->
        h.attempt = h.of_attempt; h.frozen = NO_COMMAND; printf("| %c: a thawed agent appends what it had decided\n", NAME(_pid)); WRITE(ACTIVATING) }
    :: d_step { h.frozen == APPEND_READY && NO_COMPARE_AND_APPEND ->
        h.attempt = h.of_attempt; h.frozen = NO_COMMAND; printf("| %c: a thawed agent appends what it had decided\n", NAME(_pid)); at(h.attempt).ready = 1;
        WRITE(READY) }

    /* An orchestrator that took the attempt over is heard; its predecessor's wish to cancel arrives late. */
    :: d_step { OPEN(_pid) && !healed && h.attempt == begun && h.term < driver && UP(_pid) &&
                (mine.source == _pid || peer_source.term == driver || NO_TERM_AT_SOURCE_FIRST) -> h.term = driver;
        printf("| %c: hears of term %d\n", NAME(_pid), driver) }
    :: d_step { (h.state == OUTGOING || h.state == STOPPED) && !healed && h.attempt == begun && driver > 1 &&
                (h.term <= 1 || NO_TERM) && h.alive && h.attached && cancels && UP(_pid) ->
        REQUIRE((h.term <= 1), never_an_old_driver);
        abort_attempt(0) }

    /* Faults, and the operator. */
    :: d_step { !healed && restarts > 0 && h.state != NOTHING && UP(_pid) && (h.live || h.attached) ->
        restarts--; restart(); printf("| %c: agent restarts\n", NAME(_pid)) }
    FREEZES(RUN, (h.state == ABORTED || h.state == RECLAIMED || h.state == TAKEN) && !h.run_confirmed && h.alive &&
                 !h.runs && h.attached && h.was_running, h.owned)
    FREEZES(RUN, h.state == ACTIVATING && h.alive && !h.runs && h.attached && h.was_running, mine.epoch)
    FREEZES(PAUSE, h.state == OUTGOING && h.live && h.alive && h.runs && h.attached, 0)
    FREEZES(FREE, (h.state == RETIRED || h.state == DISCARDED) && h.alive, 0)
    FREEZES(APPEND_ABORTED, NO_COMPARE_AND_APPEND && (h.state == OUTGOING || h.state == STOPPED) && h.alive &&
                            h.attached, 0)
    FREEZES(APPEND_RELEASED, NO_COMPARE_AND_APPEND && h.state == STOPPED && STANDS_AT(_pid) && SAYS_READY(h.attempt), 0)
    FREEZES(APPEND_ACTIVATING, NO_COMPARE_AND_APPEND && h.state == READY && h.alive && SECRET_SENT(h.attempt), 0)
    FREEZES(APPEND_READY, NO_COMPARE_AND_APPEND && h.state == PREPARED && h.alive && h.whole && h.live, 0)
    :: d_step { !healed && deaths > 0 && h.alive ->
        deaths--; printf("| %c: the machine's process dies\n", NAME(_pid));
        die() }
    :: d_step { !healed && vouchers > 0 && UP(_pid) && h.state != NOTHING ->
        vouchers--; printf("| %c: is off, the operator vouches for it\n", NAME(_pid));
        if
        :: h.alive && !NO_VOUCHED_OFF ->
            die(); h.frozen = NO_COMMAND
        :: else
        fi;
        restart(); h.off = 1 }
    :: d_step { h.off -> h.off = 0; printf("| %c: returns\n", NAME(_pid)) }
    od
}

#define HOLDS_NEWER(i, k) (UP(i) && (OPEN(i) || OWNS(i)) && attempt[host[i].attempt].epoch > at(k).epoch)
#define NEWEST(k) ((!HOLDS_NEWER(0, k) && !HOLDS_NEWER(1, k) && !HOLDS_NEWER(2, k)) || NO_TAKEN_NEWEST)

/* What may be missing is the operator's to accept: from here on, the copy that is taken is the machine. */
inline take(i) {
    host[i].highest = MAX(SEEN(0), MAX(SEEN(1), SEEN(2))) + 1;
    REQUIRE((host[i].highest < 15), counts_in_bounds);
    host[i].owned = host[i].highest; host[i].state = TAKEN; host[i].run_confirmed = 0; host[i].former_retired = 1;
    host[0].fresh = 0; host[1].fresh = 0; host[2].fresh = 0; EACH_ATTEMPT(GOES_STALE)
    host[i].fresh = 1; died = 0;
    printf("| %c: the operator takes it at epoch %d\n", NAME(i), host[i].owned)
}

/* No image is left: LOST of no attempt, above every epoch seen, which never says that it did not run here. */
inline write_off(i) {
    host[i].highest = MAX(SEEN(0), MAX(SEEN(1), SEEN(2))) + 1;
    REQUIRE((host[i].highest < 15), counts_in_bounds);
    host[i].owned = host[i].highest; host[i].state = LOST; host[i].attempt = 0; host[i].former_retired = 1;
    printf("| %c: the operator writes it off at epoch %d\n", NAME(i), host[i].owned)
}

#define SRC(k) host[at(k).source]
#define DST(k) host[at(k).destination]
#define OPERATOR(k) \
    :: d_step { begun >= k && operator && SRC(k).off && SIGHT(at(k).source, k, STOPPED) && UP(at(k).destination) && \
                SIGHT(at(k).destination, k, READY) && DST(k).pause == SRC(k).pause -> \
        SRC(k).state = RELEASED; at(k).given = 1; at(k).secret = 1; \
        printf("| %c: the operator's tool appends RELEASED for attempt %d\n", NAME(at(k).source), k) } \
    :: d_step { begun >= k && operator && SRC(k).off && UP(at(k).destination) && DST(k).alive && DST(k).attached && \
                SIGHT(at(k).destination, k, READY) && NEWEST(k) -> take(at(k).destination) } \
    :: d_step { begun >= k && operator && UP(at(k).source) && SRC(k).alive && SRC(k).attached && \
                SIGHT(at(k).source, k, RELEASED) && NEWEST(k) && \
                (DST(k).off || (SIGHT(at(k).destination, k, ACTIVATING) && !DST(k).alive)) -> take(at(k).source) } \
    :: d_step { begun >= k && operator && UP(at(k).destination) && SIGHT(at(k).destination, k, ACTIVATING) && \
                !DST(k).alive && !SRC(k).alive && NEWEST(k) -> write_off(at(k).destination) } \
    :: d_step { begun >= k && operator && SRC(k).off && UP(at(k).destination) && !DST(k).former_retired && \
                SIGHT(at(k).destination, k, ACTIVE) -> \
        DST(k).former_retired = 1; printf("| %c: the operator vouches that the former source is off\n", NAME(at(k).destination)) }

#define RAN(i, k) (SIGHT(i, k, ACTIVATING) || SIGHT(i, k, ACTIVE))
#define CONTRADICTION(k) (begun >= k && ( \
    (RAN(at(k).destination, k) && (SIGHT(at(k).source, k, OUTGOING) || SIGHT(at(k).source, k, STOPPED) || \
        SIGHT(at(k).source, k, ABORTED) || SIGHT(at(k).source, k, LOST) || SIGHT(at(k).source, k, RECLAIMED))) || \
    (SIGHT(at(k).source, k, RELEASED) && (SIGHT(at(k).destination, k, PREPARED) || \
        SIGHT(at(k).destination, k, DISCARDED) || IS_PASSED(at(k).destination, k) || \
        host[at(k).destination].state == NOTHING)) || \
    (SIGHT(at(k).source, k, RECLAIMED) && (SIGHT(at(k).destination, k, PREPARED) || \
        SIGHT(at(k).destination, k, READY))))) ||

#define RUNNING (host[0].runs + host[1].runs + host[2].runs)
#define OPERATORS_ROW(i) (host[i].state == ACTIVATING && !host[i].alive && undecided)
#define SETTLED(i) (!host[i].off && !OPEN(i) && (OWNS(i) == host[i].alive || (OWNS(i) && died)) && \
                    (!host[i].alive || (host[i].run_confirmed && (host[i].former_retired || NO_FORMER_RETIRED))))

/* States that a run is asked to reach, so that what holds does not hold for want of anything happening. */
#define WITNESS(number, state) \
    :: d_step { c_expr { !(witness - number) } && (state) -> assert(c_expr { !can_be_seen }) }

#define ONE_OR_LOST (RUNNING == 1 || (RUNNING == 0 && (died || !(WHOLE(0) || WHOLE(1) || WHOLE(2)))))

active proctype world() {
    d_step {
        host[0].state = OWNER; host[0].highest = 1; host[0].owned = 1; host[0].run_confirmed = 1;
        host[0].former_retired = 1; host[0].was_running = 1; host[0].live = 1; host[0].attached = 1;
        host[0].alive = 1; host[0].runs = 1; host[0].fresh = 1;
        c_code {
            now.attempts = bound("ATTEMPTS"); now.takeovers = bound("TAKEOVERS"); now.restarts = bound("RESTARTS");
            now.freezes = bound("FREEZES"); now.deaths = bound("DEATHS"); now.vouchers = bound("VOUCHERS");
            now.operator = bound("VOUCHERS") > 0; now.cancels = bound("TAKEOVERS") > 0;
        }
    }
end: do
    :: d_step { !healed && takeovers > 0 && begun > 0 && driver == 1 ->
        takeovers--; driver = 2; printf("| Another orchestrator takes attempt %d over\n", begun) }
    EACH_ATTEMPT(OPERATOR)
    :: d_step { !healed -> healed = 1; printf("| The links heal; what was on its way is lost\n");
        attempts = 0; takeovers = 0; restarts = 0; freezes = 0; deaths = 0; vouchers = 0; cancels = 0; driver = 0;
        EACH_ATTEMPT(IS_FORGOTTEN) }
    :: d_step { (EACH_ATTEMPT(CONTRADICTION) 0) && c_expr { ((watch >> never_contradictory) & 1) } ->
        assert(c_expr { !never_contradictory }) }
    WITNESS(1, host[0].state == ACTIVE && host[0].runs)                            /* back on the first host */
    WITNESS(2, host[2].state == ACTIVE && attempt[2].source == 0)                  /* at another, after a first try */
    WITNESS(3, host[0].state == RECLAIMED && host[0].runs)
    WITNESS(4, host[1].state == ACTIVE && host[0].state == RELEASED && !host[0].alive)
    WITNESS(5, host[1].state == READY && host[2].state == READY)
    WITNESS(6, host[0].frozen == RUN && host[0].commands && host[0].alive)
    WITNESS(7, host[1].frozen == RUN && host[1].commands && host[1].alive)
    WITNESS(8, host[0].state == LOST && host[1].state == LOST && !died)
    WITNESS(9, host[0].state == TAKEN && host[0].runs)
    WITNESS(10, host[1].state == TAKEN && host[1].runs)
    WITNESS(11, host[1].state == LOST && host[1].owned > 1)                        /* written off */
    WITNESS(12, host[0].term == 2 && host[1].term == 2)
    :: timeout ->
        REQUIRE((OPERATORS_ROW(0) || OPERATORS_ROW(1) || OPERATORS_ROW(2) || (ONE_OR_LOST && SETTLED(0) && SETTLED(1) &&
            SETTLED(2))), ends_as_the_table_says);
        break
    od
}
