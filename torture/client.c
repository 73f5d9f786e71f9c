/*
 * client.c
 *	  One contender of scripts/torture: a process with connections of its own.
 *
 *		client NAME LOG SEED LOCKS ORIGIN CONNINFO
 *
 * If its name begins with "operator" it does not contend, but observes, asks
 * leaders to resign, and revokes.
 *
 * A contender keeps the client's rule (README, "How a client uses it") to the letter
 * and writes down what it does, so that torture/check can judge afterwards.
 * A line of the log is one write(2), and it is written before what it tells
 * of is acted on: a killed process has not done anything that its log does
 * not know.  Times are microseconds of CLOCK_MONOTONIC_RAW, but for deadlines,
 * which are of the client's own clock, CLOCK_BOOTTIME: the nemesis lets that
 * run at a wrong rate, and knows how the two belong together.
 *
 *		P time name pid					the process begins
 *		S time call link what lock token lease_ms entry more
 *										a call is about to be sent; entry is the
 *										number of the ledger's entry that it is
 *										for, or 0; more is how long it waits or
 *										the hold, in ms, a successor, or -
 *		A time call answer				and has been answered: t, f, - for NULL,
 *										a value, several of these, a command tag,
 *										ERROR:sqlstate, LOST (the backend is
 *										gone), TIMEOUT
 *		B time lock token deadline		leads from that time on (token 0: it is
 *										not known yet), or longer than before
 *		X time lock token reason		stops leading
 *		Q time							the process ends as it should
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "log.h"

#define MS INT64_C(1000)
#define CONNECT_LIMIT (2000 * MS)
#define ANSWER_LIMIT (3000 * MS)	/* longer than any lease */
#define GENERATION (6000 * MS)	/* how long a lock is contended for */
#define MEETING (20 * MS)
#define LEASE_MIN 700
#define LEASE_MAX 2000
#define MAX_SLOTS 16
#define MAX_DEAD 4
#define WAIT_MAX 2500			/* ms */
#define HOLD_MAX 2500			/* ms */

/* A connection */
typedef struct Link
{
	int			number;
	PGconn	   *pg;				/* NULL: there is none */
} Link;

/* What has become of a call */
typedef enum Kind
{
	SAID_TRUE,
	SAID_FALSE,
	SAID_OTHER,					/* NULL, a value, a command tag */
	FAILED,						/* an error; the connection may be gone */
	UNKNOWN						/* no answer, and the connection is gone */
} Kind;

typedef struct Call
{
	int64_t		number;
	int64_t		sent;			/* by our own clock */
	int64_t		answered;		/* as in the log */
	Kind		kind;
	char		text[256];
} Call;

/* A call that waits in the server, while we do other things */
typedef struct Wait
{
	Link		link;
	bool		asked;			/* and has not been answered */
	bool		candidate;		/* le_campaign; else le_observe */
	bool		patient;		/* we do not ask otherwise meanwhile */
	int64_t		lock;
	int64_t		limit;			/* for the answer, by the log's clock */
	Call		call;
} Wait;

/* One lock at a time that we contend for; another one each generation */
typedef struct Slot
{
	int64_t		lock;
	int			lease_ms;
	bool		leads;
	int64_t		deadline;		/* by our own clock */
	int64_t		gave_up_at;		/* by our own clock: have not led since */
	int64_t		given_up;		/* the largest token that we gave up */
	int64_t		token;			/* of the last term, 0: not known */
	int64_t		observed;		/* token that le_observe showed, 0: none */
	bool		asked_to_go;	/* an operator would like us to resign */
	Wait		wait;
	bool		releasing;		/* the token's release must be answered */
	int64_t		due;			/* next turn, by the log's clock */
	int			burst;			/* turns to come without much pause */
	bool		late;			/* has let its deadline pass on purpose */
	int64_t		dead[MAX_DEAD]; /* earlier tokens of ours */
} Slot;

static const char *me;
static const char *conninfo;
static int64_t origin;
static uint64_t seed;
static Slot slots[MAX_SLOTS];
static int	n_slots;
static Link main_link = {.number = 1};
static Link second_link = {.number = 2};
static int64_t calls = 0;
static int64_t entry = 0;		/* of the ledger, that is written just now */
static char more[128] = "-";	/* of the next call, for the log */
static volatile sig_atomic_t ending = 0;

static int64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

/* The clock by which a client counts its lease */
static int64_t
own_clock(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

/* A random number below n (splitmix64) */
static int64_t
chance(int64_t n)
{
	uint64_t	z = (seed += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	z ^= z >> 31;
	return (int64_t) (z % (uint64_t) n);
}

static bool
percent(int n)
{
	return chance(100) < n;
}

/* ---------------------------------------------------------------------
 * Leading
 * ---------------------------------------------------------------------
 */

static void
stop(Slot *slot, const char *reason)
{
	if (slot->leads)
	{
		note("X %" PRId64 " %" PRId64 " %" PRId64 " %s",
			 now(), slot->lock, slot->token, reason);
		slot->gave_up_at = own_clock();
		if (slot->token == 0)
			slot->given_up = INT64_MAX; /* it may be any */
		else if (slot->token > slot->given_up)
			slot->given_up = slot->token;
	}
	slot->leads = false;
}

/* Do I lead?  Nobody but my clock tells me when to stop. */
static bool
leads(Slot *slot)
{
	if (slot->leads && own_clock() >= slot->deadline)
		stop(slot, "deadline");
	return slot->leads;
}

/*
 * A call has been told true: lead by it until its sending time + what it is
 * valid for.  If that has passed, as it may have while the process was frozen,
 * the answer is void.
 */
static void
lead(Slot *slot, const Call *call, int64_t valid_for_ms)
{
	int64_t		deadline = call->sent + valid_for_ms * MS;

	if (own_clock() >= deadline || (slot->leads && deadline <= slot->deadline))
		return;
	note("B %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64,
		 call->answered, slot->lock, slot->token, deadline);
	slot->leads = true;
	slot->deadline = deadline;
}

/* How long is it until then? */
static int64_t
until_deadline(const Slot *slot)
{
	return slot->deadline - own_clock();
}

static int64_t
sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void wait_answered(Slot *slot);

/*
 * Wait for a socket or for a time.  Deadlines are honoured meanwhile, and what
 * waits in the server is answered.
 */
static bool
wait_for(int fd, short events, int64_t until)
{
	for (;;)
	{
		struct pollfd fds[1 + MAX_SLOTS];
		int64_t		t = now();
		int64_t		next = until - t;
		struct timespec ts;

		fds[0] = (struct pollfd)
		{
			.fd = fd,.events = events
		};
		for (int i = 0; i < n_slots; i++)
		{
			Wait	   *wait = &slots[i].wait;

			if (leads(&slots[i]))
				next = sooner(next, until_deadline(&slots[i]));
			if (wait->asked)
				next = sooner(next, wait->limit - t);
			/* a negative one is passed over */
			fds[1 + i] = (struct pollfd)
			{
				.fd = wait->asked ? PQsocket(wait->link.pg) : -1,.events = POLLIN
			};
		}
		if (t >= until || ending)
			return false;
		next = next > 0 ? next : 0;
		ts.tv_sec = next / 1000000;
		ts.tv_nsec = next % 1000000 * 1000;
		if (ppoll(fds, 1 + n_slots, &ts, NULL) < 0)
			continue;
		for (int i = 0; i < n_slots; i++)
		{
			Wait	   *wait = &slots[i].wait;

			if (wait->asked && (fds[1 + i].revents != 0 || now() >= wait->limit))
				wait_answered(&slots[i]);
		}
		if (fds[0].revents != 0)
			return true;
	}
}

static void
pause_until(int64_t until)
{
	wait_for(-1, 0, until);
}

/* ---------------------------------------------------------------------
 * Asking
 * ---------------------------------------------------------------------
 */

static void
disconnect(Link *link)
{
	PQfinish(link->pg);
	link->pg = NULL;
}

static void
ignore_notice(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

/* Find the server that can be written to. */
static bool
connected(Link *link)
{
	int64_t		until = now() + CONNECT_LIMIT;
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (link->pg != NULL)
		return true;
	link->pg = PQconnectStart(conninfo);
	PQsetNoticeProcessor(link->pg, ignore_notice, NULL);
	if (PQstatus(link->pg) == CONNECTION_BAD)
		status = PGRES_POLLING_FAILED;
	while (status != PGRES_POLLING_OK)
	{
		if (status == PGRES_POLLING_FAILED ||
			!wait_for(PQsocket(link->pg),
					  status == PGRES_POLLING_READING ? POLLIN : POLLOUT,
					  until))
		{
			disconnect(link);
			return false;
		}
		status = PQconnectPoll(link->pg);
	}
	return true;
}

/* Send a call on a link that is connected. */
static Call
send_call(Link *link, const Slot *slot, const char *what, int64_t token,
		  const char *sql)
{
	Call		call = {.number = ++calls,.sent = own_clock()};

	note("S %" PRId64 " %" PRId64 " %d %s %" PRId64 " %" PRId64 " %d %" PRId64 " %s",
		 now(), call.number, link->number, what, slot->lock, token,
		 slot->lease_ms, entry, more);
	strcpy(more, "-");
	PQsendQuery(link->pg, sql);
	return call;
}

/* One row, or none; the first value is the answer proper. */
static void
read_row(Call *call, PGresult *result)
{
	bool		found = PQntuples(result) > 0;
	size_t		length = 0;

	for (int i = 0; i < PQnfields(result); i++)
	{
		bool		null = !found || PQgetisnull(result, 0, i);

		length += snprintf(call->text + length, sizeof(call->text) - length,
						   "%s%s", i > 0 ? " " : "",
						   null ? "-" : PQgetvalue(result, 0, i));
	}
	call->kind = strncmp(call->text, "t", strcspn(call->text, " ")) == 0 ? SAID_TRUE :
		strncmp(call->text, "f", strcspn(call->text, " ")) == 0 ? SAID_FALSE :
		SAID_OTHER;
}

/* The gist of one result */
static void
read_result(Call *call, PGresult *result)
{
	const char *state;

	switch (PQresultStatus(result))
	{
		case PGRES_TUPLES_OK:
			read_row(call, result);
			break;
		case PGRES_COMMAND_OK:
			snprintf(call->text, sizeof(call->text), "%s", PQcmdStatus(result));
			call->kind = SAID_OTHER;
			break;
		default:
			state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
			if (state != NULL)
				snprintf(call->text, sizeof(call->text), "ERROR:%s", state);
			else
				snprintf(call->text, sizeof(call->text), "LOST");
			call->kind = state != NULL ? FAILED : UNKNOWN;
	}
}

/*
 * Wait for the answer.  It counts when it is complete: no error, and the
 * server is ready for the next query.
 */
static void
receive_until(Link *link, Call *call, int64_t until)
{
	call->kind = UNKNOWN;
	strcpy(call->text, "LOST");
	for (;;)
	{
		PGresult   *result;
		int			unsent = PQflush(link->pg);

		if (!PQisBusy(link->pg))
		{
			result = PQgetResult(link->pg);
			if (result == NULL)
				break;
			if (call->kind != FAILED)
				read_result(call, result);
			PQclear(result);
			continue;
		}
		if (!wait_for(PQsocket(link->pg), unsent > 0 ? POLLIN | POLLOUT : POLLIN,
					  until))
		{
			strcpy(call->text, "TIMEOUT");
			call->kind = UNKNOWN;
			break;
		}
		/* a failure shows in the result and in the link's state */
		PQconsumeInput(link->pg);
	}
	call->answered = now();
	note("A %" PRId64 " %" PRId64 " %s", call->answered, call->number,
		 call->text);
	if (call->kind == UNKNOWN || PQstatus(link->pg) == CONNECTION_BAD)
		disconnect(link);
}

static void
receive(Link *link, Call *call)
{
	receive_until(link, call, now() + ANSWER_LIMIT);
}

/* One statement, alone in its pipeline and complete; what names it. */
__attribute__((format(printf, 5, 6)))
static Call
ask(Link *link, const Slot *slot, const char *what, int64_t token,
	const char *format,...)
{
	char		sql[512];
	va_list		args;
	Call		call = {.kind = UNKNOWN};

	if (!connected(link))
	{
		strcpy(more, "-");
		pause_until(now() + 20 * MS + chance(60 * MS));
		return call;
	}
	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	call = send_call(link, slot, what, token, sql);
	receive(link, &call);
	return call;
}

/* A function of lock, name and token */
static Call
ask_about_token(Link *link, const Slot *slot, const char *what, int64_t token)
{
	return ask(link, slot, what, token,
			   "SELECT le_%s(%" PRId64 ", '%s', %" PRId64 ")",
			   what, slot->lock, me, token);
}

/* A heartbeat as a statement: le_renew or, if it is full, le_keep_alive */
static void
heartbeat_sql(const Slot *slot, bool full, char *sql, size_t size)
{
	snprintf(sql, size, full ?
			 "SELECT leads, valid_for_ms, resign_requested, waiting FROM le_keep_alive(%" PRId64 ", '%s', %" PRId64 ")" :
			 "SELECT le_renew(%" PRId64 ", '%s', %" PRId64 ")",
			 slot->lock, me, slot->token);
}

static Call
send_heartbeat(Link *link, const Slot *slot, bool full)
{
	char		sql[512];

	heartbeat_sql(slot, full, sql, sizeof(sql));
	return send_call(link, slot, full ? "keep_alive" : "renew", slot->token, sql);
}

/* ---------------------------------------------------------------------
 * Turns
 * ---------------------------------------------------------------------
 */

static void
bury(Slot *slot)
{
	slot->asked_to_go = false;
	if (slot->token == 0)
		return;
	memmove(slot->dead + 1, slot->dead, (MAX_DEAD - 1) * sizeof(int64_t));
	slot->dead[0] = slot->token;
	slot->token = 0;
}

/* What a token of the past is told, the checker judges; we believe nothing. */
static void
probe(Slot *slot)
{
	int64_t		token = slot->dead[chance(MAX_DEAD)];

	const char *what[] = {"renew", "is_leader", "guard", "transfer"};

	if (token != 0)
		ask_about_token(&main_link, slot, what[chance(4)], token);
}

/*
 * Acquire, renew and fail, all in one transaction.  A heartbeat stays, a
 * term that began in it never was.
 */
static void
fail(Slot *slot)
{
	ask(&main_link, slot, "fail", 0,
		"SELECT le_try_acquire(%" PRId64 ", '%s', %d), 1 / (0 * le_renew(%" PRId64 ", '%s')::int)",
		slot->lock, me, slot->lease_ms, slot->lock, me);
}

static void
learn_token(Slot *slot)
{
	Call		call = ask(&main_link, slot, "token", 0,
						   "SELECT le_token(%" PRId64 ", '%s')",
						   slot->lock, me);

	if (call.kind == SAID_OTHER && leads(slot))
		slot->token = strtoll(call.text, NULL, 10);
}

static void
deposed(Slot *slot)
{
	stop(slot, "deposed");
	bury(slot);
}

static void
heartbeat(Slot *slot)
{
	bool		full = percent(50);
	int			valid_for_ms = slot->lease_ms;
	char		resign = 'f';
	char		sql[512];
	Call		call;

	heartbeat_sql(slot, full, sql, sizeof(sql));
	call = ask(&main_link, slot, full ? "keep_alive" : "renew", slot->token,
			   "%s", sql);
	if (call.kind == SAID_TRUE && full &&
		sscanf(call.text, "t %d %c", &valid_for_ms, &resign) != 2)
		return;

	/* passing the deadline voids the answers to calls sent before it */
	if (call.kind == SAID_TRUE && (leads(slot) || call.sent >= slot->gave_up_at))
	{
		lead(slot, &call, valid_for_ms);
		slot->asked_to_go = (resign == 't' && percent(70));
	}
	else if (call.kind == SAID_FALSE)
		deposed(slot);
}

/* Whom to hand over to: to one who waits, to whoever may be there, or NULL */
static void
choose_successor(const Slot *slot, char *successor, size_t size)
{
	Call		call;

	successor[0] = '\0';
	if (percent(50))
		return;
	call = ask(&main_link, slot, "waiting", 0,
			   "SELECT instance FROM leader_waiting WHERE lock_id = %" PRId64
			   " AND instance <> '%s' ORDER BY random() LIMIT 1",
			   slot->lock, me);
	if (call.kind == SAID_OTHER && strcmp(call.text, "-") != 0)
		snprintf(successor, size, "%.63s", call.text);
	else if (percent(25))
		snprintf(successor, size, "client-%d-1", 1 + (int) chance(6));
	if (strcmp(successor, me) == 0)
		successor[0] = '\0';
}

/* How we end a term ourselves */
typedef struct Ending
{
	bool		transfers;		/* else releases */
	char		successor[80];	/* "": the first who waits */
	int			hold_ms;
} Ending;

static Ending
choose_ending(const Slot *slot, bool transfers)
{
	Ending		ending = {.transfers = transfers};

	if (transfers)
		choose_successor(slot, ending.successor, sizeof(ending.successor));
	else if (percent(30))
		ending.hold_ms = 1 + (int) chance(HOLD_MAX);
	return ending;
}

static Call
ask_to_end(Link *link, const Slot *slot, const Ending *ending)
{
	if (!ending->transfers)
	{
		snprintf(more, sizeof(more), "%d", ending->hold_ms);
		return ask(link, slot, "release", slot->token, ending->hold_ms == 0 ?
				   "SELECT le_release(%" PRId64 ", '%s', %" PRId64 ")" :
				   "SELECT le_release(%" PRId64 ", '%s', %" PRId64 ", %d)",
				   slot->lock, me, slot->token, ending->hold_ms);
	}
	if (ending->successor[0] == '\0')
		return ask_about_token(link, slot, "transfer", slot->token);
	snprintf(more, sizeof(more), "%s", ending->successor);
	return ask(link, slot, "transfer", slot->token,
			   "SELECT le_transfer(%" PRId64 ", '%s', %" PRId64 ", '%s')",
			   slot->lock, me, slot->token, ending->successor);
}

/* What has become of it */
typedef enum Outcome
{
	ENDED,						/* the term is over */
	GOES_ON,					/* nothing has changed, as far as we know */
	UNCLEAR
} Outcome;

static Outcome
outcome_of(const Ending *ending, const Call *call)
{
	if (call->kind == SAID_TRUE)
		return ENDED;
	if (call->kind == SAID_FALSE)
		return ending->transfers ? GOES_ON : ENDED; /* may be over by itself */
	return UNCLEAR;
}

/*
 * End the term in the transaction that is open on a link, and commit that or
 * roll it back.  While it is open another connection may send a heartbeat with
 * the same token, which we do not believe any more.
 */
static Outcome
end_in_open_transaction(Link *link, Link *other, Slot *slot,
						const Ending *ending, const char *commit,
						const char *rollback)
{
	bool		commits = percent(65);
	bool		beats = percent(50) && connected(other);
	Call		call = ask_to_end(link, slot, ending);
	Call		beat = {.kind = UNKNOWN};
	Call		last;

	if (link->pg == NULL)
		return UNCLEAR;
	if (beats && other->pg != NULL)
		beat = send_heartbeat(other, slot, percent(50));
	else
		beats = false;
	pause_until(now() + chance(60 * MS));
	last = ask(link, slot, commits ? commit : rollback, slot->token,
			   commits ? "COMMIT" : "ROLLBACK");
	if (beats)
		receive(other, &beat);
	if (last.kind == SAID_OTHER && strcmp(last.text, "COMMIT") == 0)
		return outcome_of(ending, &call);
	return last.kind == SAID_OTHER ? GOES_ON : UNCLEAR;
}

static Outcome
end_in_transaction(Slot *slot, const Ending *ending)
{
	Call		call = ask(&main_link, slot, "begin", 0, "BEGIN");

	if (call.kind != SAID_OTHER)
		return UNCLEAR;
	return end_in_open_transaction(&main_link, &second_link, slot, ending,
								   "commit", "rollback");
}

/*
 * The term is ending, so we do not lead; as long as we do not know whether it
 * has, it must be released.  Where nothing has changed a later heartbeat may
 * tell that we lead still.
 */
static void
ended(Slot *slot, Outcome outcome)
{
	slot->releasing = (outcome == UNCLEAR);
	if (outcome != ENDED)
		return;
	bury(slot);
	if (percent(50))
		ask_about_token(percent(50) ? &main_link : &second_link, slot,
						"renew", slot->dead[0]);
}

static void
end_term(Slot *slot, bool transfers, bool in_transaction)
{
	Ending		ending = choose_ending(slot, transfers);
	Outcome		outcome;

	stop(slot, transfers ? "hands over" : "releases");
	slot->releasing = true;
	if (in_transaction)
		outcome = end_in_transaction(slot, &ending);
	else
	{
		Call		call = ask_to_end(&main_link, slot, &ending);

		outcome = outcome_of(&ending, &call);
	}
	ended(slot, outcome);
}

/* Was it refused because we do not lead? */
static bool
refused(const Call *call)
{
	return call->kind == FAILED && strcmp(call->text, "ERROR:LE001") == 0;
}

/*
 * A guarded transaction that appends to the ledger what it has found there:
 * how many entries of earlier terms there are.  There must never be more.
 * Between guard and commit it may take so long that somebody else leads, and
 * a heartbeat or a release may come from our other connection; or it hands
 * over, with the work as its last.
 */
static Call
work_in_transaction(Slot *slot)
{
	int			dice = (int) chance(100);
	Call		call;
	int64_t		before;

	call = ask(&second_link, slot, "g_begin", slot->token, "BEGIN");
	if (call.kind != SAID_OTHER)
		return call;
	call = ask_about_token(&second_link, slot, "guard", slot->token);
	if (call.kind == SAID_OTHER)
		call = ask(&second_link, slot, "g_read", slot->token,
				   "SELECT count(*) FROM ledger WHERE lock_id = %" PRId64 " AND token < %" PRId64,
				   slot->lock, slot->token);
	before = strtoll(call.text, NULL, 10);
	if (call.kind == SAID_OTHER)
	{
		int64_t		token = slot->token;

		if (dice < 8)
			pause_until(now() + until_deadline(slot) +
						chance(slot->lease_ms * MS / 5));
		else if (dice < 16)
			end_term(slot, percent(50), false);
		else if (dice < 60)
			heartbeat(slot);
		else
			pause_until(now() + chance(3 * MS));

		/* the transaction has gone with its connection */
		if (second_link.pg == NULL)
		{
			call.kind = UNKNOWN;
			return call;
		}
		call = ask(&second_link, slot, "g_write", token,
				   "INSERT INTO ledger VALUES (%" PRId64 ", %" PRId64 ", '%s', %" PRId64 ", %" PRId64 ")",
				   slot->lock, token, me, entry, before);
		if (call.kind == SAID_OTHER && slot->token == token && leads(slot) &&
			percent(15))
		{
			Ending		ending = choose_ending(slot, percent(70));

			stop(slot, ending.transfers ? "hands over" : "releases");
			slot->releasing = true;
			ended(slot, second_link.pg == NULL ? UNCLEAR :
				  end_in_open_transaction(&second_link, &main_link, slot,
										  &ending, "g_commit", "g_rollback"));
			return call;
		}
		if (call.kind == SAID_OTHER)
			return ask(&second_link, slot, "g_commit", token, "COMMIT");
	}
	if (second_link.pg != NULL)
		ask(&second_link, slot, "g_rollback", slot->token, "ROLLBACK");
	return call;
}

static Call
work_in_one_statement(Slot *slot)
{
	return ask(&second_link, slot, "g_entry", slot->token,
			   "INSERT INTO ledger SELECT %" PRId64 ", guard, '%s', %" PRId64 ", "
			   "(SELECT count(*) FROM ledger WHERE lock_id = %" PRId64 " AND token < guard) "
			   "FROM le_guard(%" PRId64 ", '%s', %" PRId64 ") guard",
			   slot->lock, me, entry, slot->lock, slot->lock, me, slot->token);
}

static void
work_once(Slot *slot)
{
	static int64_t entries = 0;
	int64_t		token = slot->token;
	Call		call;

	entry = ++entries;
	call = percent(70) ? work_in_transaction(slot) : work_in_one_statement(slot);
	entry = 0;
	if (refused(&call) && slot->token == token && !slot->releasing)
		deposed(slot);
}

static void
work(Slot *slot)
{
	int64_t		token = slot->token;
	int			times = 1 + (int) chance(8);

	while (times-- > 0 && leads(slot) && slot->token == token)
		work_once(slot);
}

/* le_campaign has told that we lead: may we believe it? */
static bool
elected(Slot *slot, const Call *call)
{
	int64_t		token;
	int			valid_for_ms;
	char		resign;

	if (call->kind != SAID_TRUE ||
		sscanf(call->text, "t %" SCNd64 " %d %c", &token, &valid_for_ms, &resign) != 3)
		return false;

	/*
	 * If we have given up since we sent the call the answer is void, unless it
	 * brings a larger token than any that we gave up.
	 */
	leads(slot);
	if ((call->sent < slot->gave_up_at && token <= slot->given_up) ||
		slot->releasing || token < slot->token)
		return false;
	if (slot->token != 0 && slot->token != token)
	{
		stop(slot, "another term");
		bury(slot);
	}
	slot->token = token;
	lead(slot, call, valid_for_ms);
	slot->asked_to_go = (resign == 't');
	return leads(slot);
}

static void
campaign_sql(const Slot *slot, int wait_ms, char *sql, size_t size)
{
	snprintf(more, sizeof(more), "%d", wait_ms);
	snprintf(sql, size, "SELECT elected, token, valid_for_ms, resign_requested, leader_id, remaining_ms "
			 "FROM le_campaign(%" PRId64 ", '%s', %d, %d, priority => %d)",
			 slot->lock, me, slot->lease_ms, wait_ms, (int) chance(3));
}

static void
try_to_lead(Slot *slot)
{
	Call		call;

	if (percent(30))
	{
		char		sql[512];

		campaign_sql(slot, 0, sql, sizeof(sql));
		call = ask(&main_link, slot, "campaign", 0, "%s", sql);
		if (!elected(slot, &call))
			return;
	}
	else
	{
		call = ask(&main_link, slot, "try_acquire", 0,
				   "SELECT le_try_acquire(%" PRId64 ", '%s', %d)",
				   slot->lock, me, slot->lease_ms);
		if (call.kind != SAID_TRUE)
			return;
		bury(slot);
		lead(slot, &call, slot->lease_ms);
		if (leads(slot))
			learn_token(slot);
	}
	if (slot->token != 0 && percent(70))
		work(slot);				/* what was committed before us is all there */
}

/* ---------------------------------------------------------------------
 * Waiting in the server
 * ---------------------------------------------------------------------
 */

/* Of some locks all contenders wait, of some none does, and of others some. */
static int
who_waits(const Slot *slot)
{
	const int	percent_of[] = {0, 100, 0, 60};

	return percent_of[slot->lock % 4];
}

/*
 * Where all wait they are few: somebody who has just come would find a lock
 * that nobody was woken for.
 */
static bool
only_observes(const Slot *slot)
{
	return who_waits(slot) == 100 && atoi(me + strcspn(me, "0123456789")) % 2 == 0;
}

static void
begin_wait(Slot *slot, bool candidate, bool patient)
{
	Wait	   *wait = &slot->wait;
	int			wait_ms = who_waits(slot) == 100 ?
		WAIT_MAX / 2 + (int) chance(WAIT_MAX / 2) : 1 + (int) chance(WAIT_MAX);
	char		known[32] = "NULL";
	char		sql[512];

	if (wait->asked || !connected(&wait->link))
		return;
	if (candidate)
		campaign_sql(slot, wait_ms, sql, sizeof(sql));
	else
	{
		if (slot->observed != 0)
			snprintf(known, sizeof(known), "%" PRId64, slot->observed);
		snprintf(more, sizeof(more), "%d", wait_ms);
		snprintf(sql, sizeof(sql), "SELECT leader_id, token, remaining_ms, state "
				 "FROM le_observe(%" PRId64 ", %s, %d)",
				 slot->lock, known, wait_ms);
	}
	wait->candidate = candidate;
	wait->patient = patient;
	wait->lock = slot->lock;
	wait->limit = now() + wait_ms * MS + ANSWER_LIMIT;
	wait->call = send_call(&wait->link, slot, candidate ? "campaign" : "observe",
						   slot->observed, sql);
	wait->asked = true;
}

/* There is an answer, or the time for it has passed. */
static void
wait_answered(Slot *slot)
{
	Wait	   *wait = &slot->wait;

	wait->asked = false;
	receive_until(&wait->link, &wait->call,
				  now() >= wait->limit ? now() : now() + ANSWER_LIMIT);
	if (wait->lock != slot->lock)
		return;
	if (wait->candidate)
		elected(slot, &wait->call);
	else if (wait->call.kind == SAID_OTHER &&
			 sscanf(wait->call.text, "%*s %" SCNd64, &slot->observed) != 1)
		slot->observed = 0;
	if (wait->patient)
		slot->due = 0;
}

/* Are we waiting for the server to tell us, and for nothing else? */
static bool
waits_patiently(const Slot *slot)
{
	return slot->wait.asked && slot->wait.patient &&
		slot->wait.lock == slot->lock;
}

static void
lead_on(Slot *slot)
{
	int			dice = (int) chance(100);

	if (slot->token == 0)
		learn_token(slot);
	else if (dice < 18 || slot->asked_to_go)
		end_term(slot, percent(50), percent(50));
	else if (dice < 35)
	{
		/* come back at about the time when the server lets others in */
		slot->due = now() + until_deadline(slot) +
			chance(slot->lease_ms * MS / 5);
		slot->late = true;
	}
	else if (dice < 38)
		fail(slot);
	else if (dice < 65)
		work(slot);
	else
		heartbeat(slot);
}

static void
contend(Slot *slot)
{
	int			dice = (int) chance(100);
	bool		late = slot->late;

	slot->late = false;
	if (dice < 2)
		probe(slot);
	else if (dice < 4)
		ask(&main_link, slot, "leader", 0, "SELECT le_leader(%" PRId64 ")",
			slot->lock);
	else if (dice < 8)
	{
		fail(slot);
		if (percent(50))
			ask(&main_link, slot, "token", 0, "SELECT le_token(%" PRId64 ", '%s')",
				slot->lock, me);
	}
	else if (slot->token != 0 && (late || percent(50)))
		heartbeat(slot);		/* by silence we do not know that it is over */
	else if (percent(who_waits(slot)))
		begin_wait(slot, !only_observes(slot) && percent(95),
				   percent(80) || who_waits(slot) == 100);
	else
		try_to_lead(slot);
}

/* The lock of a slot just now: a fresh one each generation. */
static int64_t
current_lock(const Slot *slot)
{
	int64_t		index = slot - slots;
	int64_t		age = now() - origin + index * GENERATION / n_slots;

	return age / GENERATION * n_slots + index + 1;
}

static void
move_on(Slot *slot)
{
	if (leads(slot))
	{
		stop(slot, "moves");
		if (slot->token != 0 && percent(50))
		{
			end_term(slot, false, false);
			return;				/* once it has been answered we move */
		}
	}
	slot->lock = current_lock(slot);
	slot->token = slot->observed = 0;
	slot->gave_up_at = slot->given_up = 0;
	slot->asked_to_go = slot->late = false;
	memset(slot->dead, 0, sizeof(slot->dead));
}

/* The next time at which all contenders of this lock ask at once */
static int64_t
meeting(const Slot *slot)
{
	int64_t		shift = (slot - slots) * MEETING / n_slots;

	return (now() - shift) / MEETING * MEETING + MEETING + shift;
}

static void
take_turn(Slot *slot)
{
	slot->due = 0;
	if (slot->releasing)
		end_term(slot, false, false);
	else if (slot->lock != current_lock(slot))
		move_on(slot);
	else if (waits_patiently(slot))
	{
		slot->due = now() + 50 * MS;
		return;
	}
	else if (leads(slot))
		lead_on(slot);
	else
		contend(slot);

	if (slot->due != 0)
		return;
	if (leads(slot))
		slot->due = now() + slot->lease_ms * MS * (80 + chance(40)) / 300;
	else if (slot->burst-- > 0)
		slot->due = now() + chance(1500);
	else
	{
		slot->due = percent(70) ? meeting(slot) : now() + 3 * MS + chance(60 * MS);
		slot->burst = percent(12) ? 40 : 0;
	}
}

/* ---------------------------------------------------------------------
 * The operator
 * ---------------------------------------------------------------------
 */

/*
 * The name of the call is in the server's log by our application_name, so that
 * it is known which term was revoked by it.  A promotion's grace is lifted on
 * purpose, and told from other revocations: it may be that of a term that this
 * server has never heard of.  Who leads or not is asked on the connection that
 * revokes, so by the same server.
 */
static void
revoke_term(Slot *slot, bool immediately)
{
	Call		call = ask(&main_link, slot, "look", 0,
						   "SELECT state FROM le_observe(%" PRId64 ")",
						   slot->lock);

	if (call.kind != SAID_OTHER || main_link.pg == NULL)
		return;
	ask(&main_link, slot, !immediately ? "revoke" :
		strcmp(call.text, "grace") == 0 ? "revoke_grace" : "revoke_now", 0,
		"SELECT le_revoke(%" PRId64 ", %s) FROM set_config('application_name', '%s:%" PRId64 "', false)",
		slot->lock, immediately ? "true" : "false", me, calls + 1);
}

static void
operate(Slot *slot)
{
	int			dice = (int) chance(100);

	if (slot->lock != current_lock(slot))
		move_on(slot);
	if (!slot->wait.asked && who_waits(slot) > 0)
		begin_wait(slot, false, false);
	if (dice < 25)
		ask(&main_link, slot, "request_resign", 0,
			"SELECT le_request_resign(%" PRId64 ")", slot->lock);
	else if (dice < 55)
	{
		revoke_term(slot, dice >= 45);
		if (percent(25))
		{
			pause_until(now() + chance(300 * MS));
			revoke_term(slot, true);
		}
	}
	slot->due = now() + chance(2500 * MS);
}

static void
end(int signal)
{
	(void) signal;
	ending = 1;
}

int
main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = end};
	pid_t		parent = getppid();

	if (argc != 7)
	{
		fprintf(stderr, "usage: client NAME LOG SEED LOCKS ORIGIN CONNINFO\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return 1;
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);

	me = argv[1];
	log_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (log_fd < 0)
	{
		perror(argv[2]);
		return 1;
	}
	seed = strtoull(argv[3], NULL, 10);
	n_slots = atoi(argv[4]);
	if (n_slots < 1 || n_slots > MAX_SLOTS)
		return 2;
	origin = strtoll(argv[5], NULL, 10);
	conninfo = argv[6];
	note("P %" PRId64 " %s %d", now(), me, (int) getpid());

	for (int i = 0; i < n_slots; i++)
	{
		slots[i].lease_ms = n_slots == 1 ? LEASE_MIN :
			LEASE_MIN + (LEASE_MAX - LEASE_MIN) * i / (n_slots - 1);
		slots[i].lock = current_lock(&slots[i]);
		slots[i].wait.link.number = 3 + i;
	}
	while (!ending)
	{
		Slot	   *next = &slots[0];

		for (int i = 1; i < n_slots; i++)
		{
			if (slots[i].due < next->due)
				next = &slots[i];
		}
		pause_until(next->due);
		if (ending || next->due > now())
			continue;
		if (strncmp(me, "operator", 8) == 0)
			operate(next);
		else
			take_turn(next);
	}
	for (int i = 0; i < n_slots; i++)
	{
		stop(&slots[i], "end");
		disconnect(&slots[i].wait.link);
	}
	disconnect(&main_link);
	disconnect(&second_link);
	note("Q %" PRId64, now());
	return 0;
}
