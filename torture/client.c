/*
 * client.c
 *	  One contender of scripts/torture: a process with connections of its own.
 *
 *		client NAME LOG SEED LOCKS ORIGIN CONNINFO
 *
 * It keeps the client's rule (README, "How a client uses it") to the letter
 * and writes down what it does, so that torture/check can judge afterwards.
 * A line of the log is one write(2), and it is written before what it tells
 * of is acted on: a killed process has not done anything that its log does
 * not know.  Times are microseconds of CLOCK_MONOTONIC_RAW, but for deadlines,
 * which are of the client's own clock, CLOCK_BOOTTIME: the nemesis lets that
 * run at a wrong rate, and knows how the two belong together.
 *
 *		P time name pid					the process begins
 *		S time call link what lock token lease_ms entry
 *										a call is about to be sent; entry is the
 *										number of the ledger's entry that it is
 *										for, or 0
 *		A time call answer				and has been answered: t, f, - for NULL,
 *										a value, a command tag, ERROR:sqlstate,
 *										LOST (the backend is gone), TIMEOUT
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

#define MS INT64_C(1000)
#define CONNECT_LIMIT (2000 * MS)
#define ANSWER_LIMIT (3000 * MS)	/* longer than any lease */
#define GENERATION (6000 * MS)	/* how long a lock is contended for */
#define MEETING (20 * MS)
#define LEASE_MIN 700
#define LEASE_MAX 2000
#define MAX_SLOTS 16
#define MAX_DEAD 4

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

/* One lock at a time that we contend for; another one each generation */
typedef struct Slot
{
	int64_t		lock;
	int			lease_ms;
	bool		leads;
	int64_t		deadline;		/* by our own clock */
	int64_t		token;			/* of the last term, 0: not known */
	bool		releasing;		/* the token's release must be answered */
	int64_t		due;			/* next turn, by the log's clock */
	int			burst;			/* turns to come without much pause */
	bool		late;			/* has let its deadline pass on purpose */
	int64_t		dead[MAX_DEAD]; /* earlier tokens of ours */
} Slot;

static const char *me;
static const char *conninfo;
static int	log_fd;
static int64_t origin;
static uint64_t seed;
static Slot slots[MAX_SLOTS];
static int	n_slots;
static Link main_link = {.number = 1};
static Link second_link = {.number = 2};
static int64_t entry = 0;		/* of the ledger, that is written just now */
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

/* The clock of the log, and by which we pace ourselves */
static int64_t
now(void)
{
	return read_clock(CLOCK_MONOTONIC_RAW);
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

__attribute__((format(printf, 1, 2)))
static void
note(const char *format,...)
{
	char		line[512];
	va_list		args;
	int			length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[length++] = '\n';
	if (write(log_fd, line, length) != length)
	{
		perror("write");
		exit(1);
	}
}

/* ---------------------------------------------------------------------
 * Leading
 * ---------------------------------------------------------------------
 */

static void
stop(Slot *slot, const char *reason)
{
	if (slot->leads)
		note("X %" PRId64 " %" PRId64 " %" PRId64 " %s",
			 now(), slot->lock, slot->token, reason);
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
 * A call has been told true: lead by it until its sending time + lease.  If
 * that has passed, as it may have while the process was frozen, the answer is
 * void.
 */
static void
lead(Slot *slot, const Call *call)
{
	int64_t		deadline = call->sent + slot->lease_ms * MS;

	if (own_clock() >= deadline)
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

/* Wait for a socket or for a time; deadlines are honoured meanwhile. */
static bool
wait_for(int fd, short events, int64_t until)
{
	struct pollfd pollfd = {.fd = fd,.events = events};

	for (;;)
	{
		int64_t		t = now();
		int64_t		next = until - t;
		struct timespec ts;

		for (int i = 0; i < n_slots; i++)
		{
			if (leads(&slots[i]) && until_deadline(&slots[i]) < next)
				next = until_deadline(&slots[i]);
		}
		if (t >= until || ending)
			return false;
		next = next > 0 ? next : 0;
		ts.tv_sec = next / 1000000;
		ts.tv_nsec = next % 1000000 * 1000;
		if (ppoll(&pollfd, fd < 0 ? 0 : 1, &ts, NULL) > 0)
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
	static int64_t calls = 0;
	Call		call = {.number = ++calls,.sent = own_clock()};

	note("S %" PRId64 " %" PRId64 " %d %s %" PRId64 " %" PRId64 " %d %" PRId64,
		 now(), call.number, link->number, what, slot->lock, token,
		 slot->lease_ms, entry);
	PQsendQuery(link->pg, sql);
	return call;
}

/* The gist of one result */
static void
read_result(Call *call, PGresult *result)
{
	const char *state;

	switch (PQresultStatus(result))
	{
		case PGRES_TUPLES_OK:
			snprintf(call->text, sizeof(call->text), "%s",
					 PQgetisnull(result, 0, 0) ? "-" : PQgetvalue(result, 0, 0));
			call->kind = strcmp(call->text, "t") == 0 ? SAID_TRUE :
				strcmp(call->text, "f") == 0 ? SAID_FALSE : SAID_OTHER;
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
receive(Link *link, Call *call)
{
	int64_t		until = now() + ANSWER_LIMIT;

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

/* ---------------------------------------------------------------------
 * Turns
 * ---------------------------------------------------------------------
 */

static void
bury(Slot *slot)
{
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

	const char *what[] = {"renew", "is_leader", "guard"};

	if (token != 0)
		ask_about_token(&main_link, slot, what[chance(3)], token);
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
	Call		call = ask_about_token(&main_link, slot, "renew", slot->token);

	/* passing the deadline voids the answers to calls sent before it */
	if (call.kind == SAID_TRUE && (leads(slot) || call.sent >= slot->deadline))
		lead(slot, &call);
	else if (call.kind == SAID_FALSE)
		deposed(slot);
}

/*
 * Release in a transaction of its own, which may be rolled back.  While it is
 * open another connection may send a heartbeat with the same token, which we
 * do not believe any more.  Did the release happen?
 */
static bool
release_in_transaction(Slot *slot)
{
	bool		commit = percent(60);
	bool		beat = percent(50) && connected(&second_link);
	Call		release;
	Call		other = {.kind = UNKNOWN};
	Call		end;
	char		sql[256];

	end = ask(&main_link, slot, "begin", 0, "BEGIN");
	if (end.kind != SAID_OTHER)
		return false;
	release = ask_about_token(&main_link, slot, "release", slot->token);
	if (main_link.pg == NULL)
		return false;
	if (beat)
	{
		snprintf(sql, sizeof(sql), "SELECT le_renew(%" PRId64 ", '%s', %" PRId64 ")",
				 slot->lock, me, slot->token);
		other = send_call(&second_link, slot, "renew", slot->token, sql);
	}
	pause_until(now() + chance(60 * MS));
	end = ask(&main_link, slot, commit ? "commit" : "rollback", 0,
			  commit ? "COMMIT" : "ROLLBACK");
	if (beat)
		receive(&second_link, &other);
	return (release.kind == SAID_TRUE || release.kind == SAID_FALSE) &&
		end.kind == SAID_OTHER && strcmp(end.text, "COMMIT") == 0;
}

static void
release(Slot *slot, bool in_transaction)
{
	bool		answered;

	slot->releasing = true;
	if (in_transaction)
		answered = release_in_transaction(slot);
	else
	{
		Call		call = ask_about_token(&main_link, slot, "release", slot->token);

		answered = call.kind == SAID_TRUE || call.kind == SAID_FALSE;
	}
	if (!answered)
		return;
	slot->releasing = false;
	bury(slot);
	if (percent(50))
		ask_about_token(percent(50) ? &main_link : &second_link, slot,
						"renew", slot->dead[0]);
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
 * a heartbeat or a release may come from our other connection.
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
		{
			stop(slot, "releases");
			release(slot, false);
		}
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

static void
try_to_lead(Slot *slot)
{
	Call		call = ask(&main_link, slot, "try_acquire", 0,
						   "SELECT le_try_acquire(%" PRId64 ", '%s', %d)",
						   slot->lock, me, slot->lease_ms);

	if (call.kind != SAID_TRUE)
		return;
	bury(slot);
	lead(slot, &call);
	if (leads(slot))
		learn_token(slot);
	if (slot->token != 0 && percent(70))
		work(slot);				/* what was committed before us is all there */
}

static void
lead_on(Slot *slot)
{
	int			dice = (int) chance(100);

	if (slot->token == 0)
		learn_token(slot);
	else if (dice < 20)
	{
		stop(slot, "releases");
		release(slot, percent(50));
	}
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
			release(slot, false);
			return;				/* once it has been answered we move */
		}
	}
	slot->lock = current_lock(slot);
	slot->token = 0;
	slot->late = false;
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
		release(slot, false);
	else if (slot->lock != current_lock(slot))
		move_on(slot);
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
		if (!ending)
			take_turn(next);
	}
	for (int i = 0; i < n_slots; i++)
		stop(&slots[i], "end");
	disconnect(&main_link);
	disconnect(&second_link);
	note("Q %" PRId64, now());
	return 0;
}
