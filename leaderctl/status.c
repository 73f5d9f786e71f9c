/*-------------------------------------------------------------------------
 *
 * status.c
 *	  Who leads, and why nobody does: what is asked and how it is told.
 *
 * One statement asks for all, so that a table, one lock and JSON say the same.
 * It tells no more than can be known: a lock that is held exclusively by a
 * transaction that writes has a term begun or ended in it; one that is held in
 * share mode by such a transaction is being committed under a guard, as those
 * who only look hold it without a transaction id.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"

#define EQ " OPERATOR(pg_catalog.=) "
#define GT " OPERATOR(pg_catalog.>) "
#define MINUS " OPERATOR(pg_catalog.-) "

/* LE_LOCK_LEASE, the fourth field of the tag of a lock's heavyweight lock */
#define LOCK_CLASS "19525"

const char *const status_needs[] = {"leader_lease", "le_leases", "leader_waiting",
"le_waiters", "leader_history", "le_terms", "le_info", NULL};

/* The columns of the answer; a row without a lock: there is none */
enum
{
	COL_STANDBY, COL_NOTIFY, COL_LOCK, COL_LED, COL_STATE, COL_REASON,
	COL_LEADER, COL_ROLE, COL_INFO, COL_TOKEN, COL_LEASE_MS, COL_LEFT_MS,
	COL_BEGAN, COL_AGE_MS, COL_RENEWED, COL_RENEWALS, COL_WAITING, COL_WAITERS,
	COL_BUSY_PID, COL_LAST_LEADER, COL_LAST_ENDED, COL_LAST_AGO_MS, COL_LAST_HOW,
	COL_JSON
};

/*
 * Those that nobody asks for come last.
 *
 * $1 is the lock, or NULL: all that somebody leads or waits for, that something
 * rests on, or whose last term has ended within a day.  $2 is its name.
 *
 * %1$s is the schema.  %2$s is how long others than whom an operator has revoked
 * are kept from the lock, which only le_observe() tells, or NULL.
 */
static const char sql[] =
"WITH info AS MATERIALIZED ("
"  SELECT pg_catalog.pg_is_in_recovery() AS standby, grace_remaining_ms FROM %1$s.le_info()"
"), lease AS MATERIALIZED ("
"  SELECT * FROM %1$s.leader_lease WHERE $1::bigint IS NULL OR id" EQ "$1"
"), waiter AS MATERIALIZED ("
"  SELECT lock_id, pg_catalog.count(*) AS waiting,"
"         pg_catalog.json_agg(pg_catalog.json_build_object('instance', instance, 'priority', priority, 'since', since)"
"                             ORDER BY priority DESC, since) AS list,"
"         pg_catalog.string_agg(pg_catalog.concat(pg_catalog.translate(instance, E'\\n', '?'), ', priority ', priority,"
"                             ', for ', pg_catalog.date_trunc('second', pg_catalog.clock_timestamp()" MINUS "since)),"
"                             E'\\n' ORDER BY priority DESC, since) AS lines"
"  FROM %1$s.leader_waiting WHERE $1::bigint IS NULL OR lock_id" EQ "$1 GROUP BY lock_id"
"), held AS MATERIALIZED ("
"  SELECT * FROM pg_catalog.pg_locks WHERE granted"
"), busy AS ("
"  SELECT (h.classid::bigint OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) h.objid::bigint AS lock_id,"
"         pg_catalog.bool_or(h.mode" EQ "'ExclusiveLock') AS changes,"
"         pg_catalog.bool_or(a.wait_event" EQ "'SyncRep') AS awaits_standby, pg_catalog.min(h.pid) AS pid"
"  FROM held h LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid" EQ "h.pid"
"  WHERE h.locktype" EQ "'advisory' AND h.objsubid" EQ LOCK_CLASS
"    AND h.database" EQ "(SELECT oid FROM pg_catalog.pg_database WHERE datname" EQ "pg_catalog.current_database())"
"    AND EXISTS (SELECT FROM held x WHERE x.pid" EQ "h.pid AND x.locktype" EQ "'transactionid'"
"                AND x.mode" EQ "'ExclusiveLock')"
"  GROUP BY 1"
"), last AS ("
"  SELECT DISTINCT ON (lock_id) lock_id, instance, began, ended, ended_how FROM %1$s.leader_history"
"  WHERE CASE WHEN $1::bigint IS NULL THEN ended" GT "(pg_catalog.now()" MINUS "'1 day'::pg_catalog.interval)"
"             ELSE lock_id" EQ "$1 END"
"  ORDER BY lock_id, token DESC"
"), lock AS ("
"  SELECT id FROM lease UNION SELECT lock_id FROM waiter UNION SELECT lock_id FROM last"
"  UNION SELECT lock_id FROM busy WHERE $1::bigint IS NULL AND changes"
"  UNION SELECT $1::bigint WHERE $1::bigint IS NOT NULL"
"), known AS ("
"  SELECT lock.id AS lock_id, info.standby, info.grace_remaining_ms, lease.leader_id, lease.leader_role, lease.info,"
"         lease.token, lease.lease_ms, lease.remaining_ms, lease.expires_at, lease.created_at, lease.renewed_at, lease.renewals,"
"         CASE WHEN info.standby THEN 'standby' ELSE COALESCE(lease.state, 'vacant') END AS state,"
"         COALESCE(lease.state" EQ "ANY (ARRAY['live', 'restarted']), false) AS led,"
"         CASE WHEN lease.state" EQ "'revoked' THEN (%2$s) END AS others_ms"
"  FROM info CROSS JOIN lock LEFT JOIN lease ON lease.id" EQ "lock.id"
"), explained AS ("
"  SELECT known.*, waiter.waiting, waiter.list, waiter.lines, busy.pid,"
"         COALESCE(known.leader_id, last.instance) AS last_leader,"
"         CASE WHEN leader_id IS NULL OR last.began" EQ "created_at THEN last.ended"
"              WHEN state" EQ "'expired' THEN expires_at END AS ended,"
"         CASE WHEN leader_id IS NULL OR last.began" EQ "created_at THEN last.ended_how"
"              WHEN state" EQ "'expired' THEN 'expired' END AS ended_how,"
"         CASE WHEN known.standby THEN 'standby'"
"              WHEN busy.changes AND busy.awaits_standby THEN 'awaits_standby'"
"              WHEN busy.changes THEN 'transition'"
"              WHEN led THEN NULL"
"              WHEN state" EQ "'held' THEN 'hold'"
"              WHEN state" EQ "'grace' OR (leader_id IS NULL AND grace_remaining_ms" GT "0) THEN 'grace'"
"              WHEN state" EQ "'revoked' AND others_ms IS NULL THEN 'revoked'"
"              WHEN state" EQ "'revoked' AND others_ms" GT "0 THEN 'revocation'"
"              WHEN busy.lock_id IS NOT NULL THEN 'guarded_commit'"
"              WHEN state" EQ "'revoked' THEN 'ban'"
"              WHEN waiter.waiting" GT "0 THEN 'waited_for'"
"              ELSE 'nobody_asks' END AS reason"
"  FROM known LEFT JOIN waiter ON waiter.lock_id" EQ "known.lock_id LEFT JOIN busy ON busy.lock_id" EQ "known.lock_id"
"       LEFT JOIN last ON last.lock_id" EQ "known.lock_id"
"), told AS ("
"  SELECT lock_id, led, state, reason, waiting, lines, list, pid, last_leader, ended, ended_how,"
"         CASE WHEN led THEN leader_id END AS leader, CASE WHEN led THEN leader_role END AS leader_role,"
"         CASE WHEN led THEN info END AS info, CASE WHEN led OR standby THEN token END AS token,"
"         CASE WHEN led OR standby THEN lease_ms END AS lease_ms,"
"         CASE WHEN led THEN remaining_ms"
"              WHEN reason" EQ "'revocation' THEN others_ms"
"              WHEN reason" EQ "'grace' AND leader_id IS NULL THEN grace_remaining_ms"
"              WHEN reason" EQ "ANY (ARRAY['hold', 'grace', 'revoked', 'ban']) AND remaining_ms" GT "0 THEN remaining_ms END AS left_ms,"
"         CASE WHEN led OR standby THEN created_at END AS began,"
"         CASE WHEN led THEN renewed_at END AS renewed, CASE WHEN led THEN renewals END AS renewals"
"  FROM explained"
")"
" SELECT info.standby, COALESCE(pg_catalog.current_setting('leader_election.notify', true), 'off')::boolean AS notify,"
"        lock_id, led, state, reason, leader, leader_role, told.info, token, lease_ms, left_ms,"
"        pg_catalog.to_char(began, 'YYYY-MM-DD HH24:MI:SS TZ') AS began,"
"        (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()" MINUS "began) OPERATOR(pg_catalog.*) 1000)::bigint AS age_ms,"
"        pg_catalog.to_char(renewed, 'YYYY-MM-DD HH24:MI:SS TZ') AS renewed, renewals,"
"        COALESCE(waiting, 0) AS waiting, lines, pid, last_leader,"
"        pg_catalog.to_char(ended, 'YYYY-MM-DD HH24:MI:SS TZ') AS ended,"
"        (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()" MINUS "ended) OPERATOR(pg_catalog.*) 1000)::bigint AS ago_ms,"
"        ended_how,"
"        pg_catalog.json_build_object('lock', lock_id, 'name', $2::pg_catalog.text, 'state', state, 'reason', reason,"
"          'leader', leader, 'role', leader_role, 'info', told.info, 'token', token, 'lease_ms', lease_ms,"
"          'remaining_ms', left_ms, 'began', began, 'renewed', renewed, 'renewals', renewals,"
"          'waiting', CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN COALESCE(list, '[]') END, 'last_leader', last_leader, 'last_ended', ended, 'last_ended_how', ended_how) AS json"
" FROM info LEFT JOIN told ON true"
" ORDER BY COALESCE(reason" EQ "'nobody_asks', false), lock_id";

/* Why nobody leads: in a table, and in a sentence */
static const struct Reason
{
	const char *code;
	const char *in_short;
	const char *text;
	bool		by_process;		/* which is named */
}			reasons[] = {

	{"nobody_asks", "nobody asks for it",
	"nobody asks for it", false},
	{"waited_for", "free for who waits",
	"it is free, and whoever waits may lead at any moment", false},
	{"hold", "a hold",
	"a hold: it was released so that nobody leads before that is over", false},
	{"grace", "grace of a promotion",
	"a promotion: somebody of whom this server does not know may lead", false},
	{"revocation", "revoked",
	"revoked: until then the old leader may believe that it leads", false},
	{"ban", "revoked: others may lead",
	"revoked: others may lead, but not yet who led", false},
	{"revoked", "revoked",
	"revoked: not yet may who led lead, nor perhaps others", false},
	{"guarded_commit", "a commit is guarded",
	"a guarded transaction is being committed: server process", true},
	{"transition", "being begun or ended",
	"an open transaction begins or ends a term: server process", true},
	{"awaits_standby", "awaits the standby",
	"a commit that begins or ends a term awaits a standby: server process", true},
	{"standby", "a standby cannot tell",
	"this server is a standby, which cannot tell who leads now", false},
};

/* The statement; in memory of its own. */
char *
status_sql(const Target *target, bool may_observe)
{
	char	   *others = may_observe ?
	format_string("SELECT o.remaining_ms FROM %s.le_observe(lock.id) AS o", target->schema) :
	format_string("NULL::bigint");
	char	   *text = format_string(sql, target->schema, others);

	free(others);
	return text;
}

/* The name by which the lock was given; NULL: by its number, or not at all */
static const char *
lock_name(const Target *target)
{
	return target->lock != NULL && strspn(target->lock, "-0123456789") < strlen(target->lock) ?
		target->lock : NULL;
}

/* The values of its parameters; static memory. */
const char *const *
status_values(const Target *target)
{
	static const char *values[2];

	values[0] = target->lock != NULL ? target->lock_id : NULL;
	values[1] = lock_name(target);
	return values;
}

/* ---------------------------------------------------------------------
 * Reading the answer
 * ---------------------------------------------------------------------
 */

/* NULL for NULL */
static const char *
field(const Status *status, int row, int column)
{
	return PQgetisnull(status->result, row, column) ? NULL :
		PQgetvalue(status->result, row, column);
}

static bool
is_true(const Status *status, int row, int column)
{
	const char *text = field(status, row, column);

	return text != NULL && text[0] == 't';
}

/* -1: unknown */
static int64_t
number(const Status *status, int row, int column)
{
	const char *text = field(status, row, column);

	return text != NULL ? strtoll(text, NULL, 10) : -1;
}

/* The first row may be that of no lock. */
static int
count_locks(const Status *status)
{
	return field(status, 0, COL_LOCK) == NULL ? 0 : PQntuples(status->result);
}

bool
status_is_standby(const Status *status)
{
	return is_true(status, 0, COL_STANDBY);
}

bool
status_is_notified(const Status *status)
{
	return is_true(status, 0, COL_NOTIFY);
}

/* Of one lock: does anybody lead? */
bool
status_is_led(const Status *status)
{
	return is_true(status, 0, COL_LED);
}

/* Of one lock: the token of the live term; NULL: there is none. */
const char *
status_token(const Status *status)
{
	return status_is_led(status) ? field(status, 0, COL_TOKEN) : NULL;
}

static const struct Reason *
find_reason(const Status *status, int row)
{
	const char *code = field(status, row, COL_REASON);

	for (size_t i = 0; code != NULL && i < sizeof(reasons) / sizeof(reasons[0]); i++)
	{
		if (strcmp(code, reasons[i].code) == 0)
			return &reasons[i];
	}
	return NULL;
}

/*
 * When this is out of date for sure, or to be doubted: a leader that works has
 * renewed its lease when half of it is gone (the server keeps it 1/10 longer), and
 * of what hangs nobody tells when it goes on.
 */
Time
status_renewed_by(const Status *status)
{
	int64_t		next_ms = INT64_MAX;

	for (int row = 0; row < count_locks(status); row++)
	{
		const struct Reason *reason = find_reason(status, row);
		int64_t		left_ms = number(status, row, COL_LEFT_MS);
		int64_t		ms = left_ms < 0 ? INT64_MAX :
		is_true(status, row, COL_LED) ? left_ms - number(status, row, COL_LEASE_MS) * 6 / 10 :
		left_ms;

		if (reason != NULL && (reason->by_process || strcmp(reason->code, "waited_for") == 0))
			ms = 0;
		if (ms < next_ms)
			next_ms = ms;
	}
	if (next_ms == INT64_MAX)
		return NEVER;
	return status->at + (next_ms < 1000 ? SECOND : next_ms * MS);
}

/* What is news when it changes, without what only goes by; memory of its own. */
char *
status_gist(const Status *status)
{
	char	   *gist = format_string("%d", count_locks(status));

	for (int row = 0; row < count_locks(status); row++)
	{
		const int	columns[] = {COL_LOCK, COL_STATE, COL_REASON, COL_TOKEN, COL_WAITING};

		for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		{
			const char *text = field(status, row, columns[i]);
			char	   *longer = format_string("%s %s", gist, text != NULL ? text : "-");

			free(gist);
			gist = longer;
		}
	}
	return gist;
}

/* ---------------------------------------------------------------------
 * Telling it
 * ---------------------------------------------------------------------
 */

/* What is left of a span that was that long when we asked; -1: unknown */
static int64_t
left_now(const Status *status, int64_t ms, Time now)
{
	int64_t		left = ms - (now - status->at) / MS;

	return ms < 0 ? -1 : left < 0 ? 0 : left;
}

static const char *
span_or_dash(int64_t ms)
{
	return ms < 0 ? "-" : span_text(ms);
}

static void
write_table(const Status *status, Time now, FILE *out)
{
	static const TableColumn columns[] = {
		{"lock", false, false}, {"leader", false, true}, {"token", true, false},
		{"state", false, false}, {"left", true, false}, {"term", true, false},
		{"wait", true, false}
	};
	Table		table;

	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (int row = 0; row < count_locks(status); row++)
	{
		bool		led = is_true(status, row, COL_LED);
		const struct Reason *reason = find_reason(status, row);
		int64_t		age = number(status, row, COL_AGE_MS);

		table_add(&table, field(status, row, COL_LOCK), COLOUR_NONE);
		if (led)
		{
			table_add(&table, field(status, row, COL_LEADER), COLOUR_NONE);
			table_add(&table, field(status, row, COL_TOKEN), COLOUR_NONE);
		}
		else
		{
			char	   *why = format_string("(%s)", reason != NULL ? reason->in_short : "?");

			table_add(&table, why, COLOUR_NONE);
			table_add(&table, NULL, COLOUR_NONE);
			free(why);
		}
		table_add(&table, field(status, row, COL_STATE),
				  !led ? COLOUR_BAD : reason != NULL ? COLOUR_CARE : COLOUR_GOOD);
		table_add(&table, span_or_dash(left_now(status, number(status, row, COL_LEFT_MS), now)), COLOUR_NONE);
		table_add(&table, span_or_dash(age < 0 ? -1 : age + (now - status->at) / MS), COLOUR_NONE);
		table_add(&table, status_is_standby(status) ? "?" : field(status, row, COL_WAITING), COLOUR_NONE);
	}
	table_write(&table, out);
}

static bool cuts_lines = false; /* where the terminal ends */

/* "name: value"; nothing if there is no value. */
static void
write_line(FILE *out, const char *name, Colour colour, const char *value)
{
	char	   *printable;
	int			room = terminal_width() - (int) strlen(name) - 2;

	if (value == NULL)
		return;
	printable = text_printable(value);
	fprintf(out, "%s%s:%s ", terminal_colour(COLOUR_TITLE), name, terminal_colour(COLOUR_NONE));
	fputs(colour != COLOUR_NONE ? terminal_colour(colour) : "", out);
	if (cuts_lines && text_width(printable) > room)
		text_write(out, printable, room, false);
	else
		fputs(printable, out);
	fputs(colour != COLOUR_NONE ? terminal_colour(COLOUR_NONE) : "", out);
	fputc('\n', out);
	free(printable);
}

static void
write_waiters(FILE *out, const char *lines)
{
	while (lines != NULL && *lines != '\0')
	{
		size_t		length = strcspn(lines, "\n");
		char	   *line = format_string("%.*s", (int) length, lines);

		write_line(out, "waiting", COLOUR_NONE, line);
		free(line);
		lines += length + (lines[length] != '\0');
	}
}

/* Write a line of this format, and forget its value. */
#define WRITE_FORMAT(out, name, ...) \
	do { \
		char	   *value_ = format_string(__VA_ARGS__); \
\
		write_line(out, name, COLOUR_NONE, value_); \
		free(value_); \
	} while (0)

static void
write_lock(const Status *status, const Target *target, Time now, FILE *out)
{
	bool		led = status_is_led(status);
	const struct Reason *reason = find_reason(status, 0);
	int64_t		left = left_now(status, number(status, 0, COL_LEFT_MS), now);
	Time		elapsed = (now - status->at) / MS;

	if (lock_name(target) != NULL)
		WRITE_FORMAT(out, "lock", "%s (%s)", lock_name(target), target->lock_id);
	else
		write_line(out, "lock", COLOUR_NONE, target->lock_id);
	write_line(out, "state", !led ? COLOUR_BAD : reason != NULL ? COLOUR_CARE : COLOUR_GOOD,
			   field(status, 0, COL_STATE));
	write_line(out, "leader", COLOUR_NONE, led ? field(status, 0, COL_LEADER) :
			   status_is_standby(status) ? "unknown" : "nobody");
	if (reason != NULL)
	{
		char	   *why = format_string("%s%s%s", reason->text, reason->by_process ? " " : "",
										reason->by_process ? field(status, 0, COL_BUSY_PID) : "");

		write_line(out, led ? "under way" : "why", COLOUR_NONE, why);
		free(why);
	}
	write_line(out, "role", COLOUR_NONE, field(status, 0, COL_ROLE));
	write_line(out, "info", COLOUR_NONE, field(status, 0, COL_INFO));
	write_line(out, "token", COLOUR_NONE, field(status, 0, COL_TOKEN));
	if (field(status, 0, COL_BEGAN) != NULL)
		WRITE_FORMAT(out, "began", "%s, %s ago", field(status, 0, COL_BEGAN),
					 span_text(number(status, 0, COL_AGE_MS) + elapsed));
	if (led && field(status, 0, COL_RENEWED) != NULL)
		WRITE_FORMAT(out, "renewed", "%s times, the last %s", field(status, 0, COL_RENEWALS),
					 field(status, 0, COL_RENEWED));
	if (led)
		WRITE_FORMAT(out, "left", "%s of %s", span_text(left),
					 duration_text(number(status, 0, COL_LEASE_MS) * MS));
	else if (left >= 0)
		write_line(out, "left", COLOUR_NONE, span_text(left));
	if (!led)
		write_line(out, "last leader", COLOUR_NONE, field(status, 0, COL_LAST_LEADER));
	if (!led && field(status, 0, COL_LAST_ENDED) != NULL)
		WRITE_FORMAT(out, "ended", "%s, %s ago: %s", field(status, 0, COL_LAST_ENDED),
					 span_text(number(status, 0, COL_LAST_AGO_MS) + elapsed),
					 field(status, 0, COL_LAST_HOW));
	if (status_is_standby(status))
		write_line(out, "waiting", COLOUR_NONE, "a standby cannot tell");
	else if (field(status, 0, COL_WAITERS) == NULL)
		write_line(out, "waiting", COLOUR_NONE, "nobody");
	write_waiters(out, field(status, 0, COL_WAITERS));
}

/*
 * For people: a table, or one lock; time that is left is counted down from then.
 * A line of it takes one line of the terminal (fits), or as many as it needs.
 */
void
status_write(const Status *status, const Target *target, bool fits, FILE *out)
{
	Time		now = clock_now();

	cuts_lines = fits;
	if (target->lock != NULL)
		write_lock(status, target, now, out);
	else if (count_locks(status) > 0)
		write_table(status, now, out);
	else
		fputs("no lock is led, waited for, or has been led within a day\n", out);
}

/* For programs: an array, or one object */
void
status_write_json(const Status *status, const Target *target, bool in_a_line,
				  FILE *out)
{
	const char *separator = in_a_line ? ", " : ",\n ";

	if (target->lock == NULL)
		fputc('[', out);
	for (int row = 0; row < count_locks(status); row++)
	{
		fputs(row > 0 ? separator : "", out);
		text_write_json(out, field(status, row, COL_JSON), in_a_line);
	}
	fputs(target->lock == NULL ? "]\n" : "\n", out);
}
