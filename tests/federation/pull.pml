/*
 * A site that pulls one domain from its origin and from a relay, over a channel that loses, repeats and reorders, and that
 * crashes between any two of its steps. Checked with Spin by test_pull_model.py:
 *
 *   prefix   what a cursor says is here, is here, and so is all that comes before it; always
 *   whole    everything that the origin has written arrives, once there is an end to losses and crashes
 *
 * -DCURSOR_FIRST and -DHIGHEST plant two mistakes: a cursor that is durable before its records, and one that is the highest
 * record ever seen. Either breaks a property.
 */

#ifndef RECORDS
#define RECORDS 3
#endif
#ifndef FAULTS
#define FAULTS 1   /* of each kind: messages lost, repeated, out of turn, and crashes */
#endif
#define BATCH 2    /* records in an answer, at most */
#define ROOM 4     /* more messages than can be on their way */

chan questions[2] = [ROOM] of { byte };         /* to the origin and to the relay: what follows which record? */
chan answers = [ROOM] of { byte, byte };        /* behind which record, how many */

byte written = 0;              /* by the origin */
byte relayed = 0;              /* of that, by the relay */
byte prefix_size = 0;          /* durable at the puller: records that follow one another, from the first */
byte cursor = 0;               /* durable at the puller */
byte lost = 0, repeated = 0, turned = 0, crashes = 0;

inline deliver(after, number) {
    if
    :: answers!after, number
    :: repeated < FAULTS -> repeated++; answers!after, number; answers!after, number
    :: lost < FAULTS -> lost++
    fi
}

/* The origin writes, and the relay has it some time. */
proctype Writers() {
    do
    :: written < RECORDS -> written++
    :: relayed < written -> relayed++
    :: relayed == RECORDS -> break
    od
}

/* Peer 0 is the origin, peer 1 the relay. */
proctype Peer(byte me) {
    byte after, number, size;
    do
    :: atomic {
        questions[me]?after ->
        size = (me == 0 -> written : relayed);
        if
        :: size <= after -> number = 0
        :: size > after -> number = 1
        :: size > after + 1 -> number = BATCH
        fi;
        deliver(after, number);
        after = 0; number = 0; size = 0
    }
    od
}

/* What is durable changes in one step, or, with the first mistake, in two. */
inline take(after, number) {
#ifdef CURSOR_FIRST
    cursor = after + number;
    if
    :: crashes < FAULTS -> crashes++; goto begin
    :: skip
    fi;
#endif
    d_step {
        prefix_size = (prefix_size > after + number -> prefix_size : after + number);
        cursor = (cursor > after + number -> cursor : after + number)
    }
}

proctype Puller() {
    byte after, number, asked;
begin:
    after = 0; number = 0; asked = 0;
    do
    :: prefix_size == RECORDS -> break
    :: else ->
        atomic {
#if defined(CURSOR_FIRST) || defined(HIGHEST)
            asked = cursor;
#else
            asked = prefix_size;
#endif
            if
            :: questions[0]!asked
            :: questions[1]!asked
            :: lost < FAULTS -> lost++
            fi
        }
#ifdef HIGHEST
        cursor = (written > cursor -> cursor + 1 : cursor);
#endif
        if
        :: answers?after, number
        :: atomic { /* not the oldest */
            turned < FAULTS && len(answers) > 1 ->
            turned++;
            answers?after, number;
            answers!after, number;
            answers?after, number
        }
        :: empty(answers) && empty(questions[0]) && empty(questions[1]) -> after = RECORDS + 1 /* none will come */
        :: crashes < FAULTS -> crashes++; goto begin
        fi;
        if
        :: crashes < FAULTS -> crashes++; goto begin
        :: number > 0 && after == asked && after <= prefix_size -> take(after, number)
        :: !(number > 0 && after == asked && after <= prefix_size) -> skip
        fi;
        after = 0; number = 0
    od
}

init {
    atomic {
        run Writers();
        run Peer(0);
        run Peer(1);
        run Puller()
    }
}

ltl prefix { [] (cursor <= prefix_size) }
ltl whole { <> (prefix_size == RECORDS) }
