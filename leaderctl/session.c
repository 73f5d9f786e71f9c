/*-------------------------------------------------------------------------
 *
 * session.c
 *	  The connection: connecting, asking, starting anew.
 *
 * Nothing here blocks once a Session is open, but for the look-up of a host's
 * name, which libpq does by itself; whoever must end something in time does not
 * rely on this file.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"

/* between attempts to connect: doubled each time */
#define PAUSE_MIN (100 * MS)
#define PAUSE_MAX (5 * SECOND)

/* an attempt, or an answer that does not wait, takes no longer */
#define PATIENCE (5 * SECOND)

/* ---------------------------------------------------------------------
 * Connecting
 * ---------------------------------------------------------------------
 */

static bool
names_several(const char *hosts)
{
	return hosts != NULL && strchr(hosts, ',') != NULL;
}

/*
 * Start to connect.  What the user has not said: a server whose host vanishes
 * is noticed within seconds, and of several hosts only the primary will do.
 */
static PGconn *
connect_start(const Target *target, const char *name)
{
	bool		primary = getenv("PGTARGETSESSIONATTRS") == NULL &&
		(names_several(target->host) || names_several(target->dbname) ||
		 names_several(getenv("PGHOST")));

	/* what comes later wins, and dbname may be a connection string */
	const char *const keywords[] = {
		"fallback_application_name", "keepalives_idle", "keepalives_interval",
		"keepalives_count", "tcp_user_timeout", "target_session_attrs",
		"dbname", "host", "port", "user", NULL
	};
	const char *const values[] = {
		name, "2", "1", "3", "5000", primary ? "read-write" : NULL,
		target->dbname, target->host, target->port, target->user, NULL
	};

	return PQconnectStartParams(keywords, values, 1);
}

static void
remember_error(Session *session, const char *sqlstate, const char *message)
{
	size_t		length = strlen(message);

	snprintf(session->sqlstate, sizeof(session->sqlstate), "%s", sqlstate);
	free(session->error);
	while (length > 0 && message[length - 1] == '\n')
		length--;
	session->error = format_string("%.*s", (int) length, message);
}

static void
session_start(Session *session)
{
	session->since = clock_now();
	session->conn = connect_start(session->target, session->name);
	if (session->conn == NULL)
		die(EXIT_FAILED, "out of memory");
	session->state = SESSION_CONNECTING;
	session->wants = POLLOUT;
	if (PQstatus(session->conn) == CONNECTION_BAD)
	{
		remember_error(session, "08006", PQerrorMessage(session->conn));
		session_drop(session);
	}
}

void
session_open(Session *session, Target *target, const char *name)
{
	memset(session, 0, sizeof(Session));
	session->target = target;
	session->name = name;
	session_start(session);
}

/* The connection is of no use any more: a new one, after a pause. */
void
session_drop(Session *session)
{
	PQfinish(session->conn);
	session->conn = NULL;
	PQclear(session->result);
	session->result = NULL;
	session->state = SESSION_CLOSED;

	/* spread, as all clients of a server lose their connections at once */
	session->pause = session->pause == 0 ? PAUSE_MIN : 2 * session->pause;
	if (session->pause > PAUSE_MAX)
		session->pause = PAUSE_MAX;
	session->retry_at = clock_now() +
		session->pause / 2 + session->pause / 2 * (random() % 1000) / 1000;
}

void
session_close(Session *session)
{
	PQfinish(session->conn);
	PQclear(session->result);
	free(session->error);
	memset(session, 0, sizeof(Session));
}

/* ---------------------------------------------------------------------
 * Turns
 * ---------------------------------------------------------------------
 */

/* -1: nothing to poll */
int
session_fd(const Session *session)
{
	return session->conn != NULL ? PQsocket(session->conn) : -1;
}

short
session_events(const Session *session)
{
	return (short) session->wants;
}

/* When to call session_turn() even if nothing has happened */
Time
session_wakes_at(const Session *session)
{
	switch (session->state)
	{
		case SESSION_CLOSED:
			return session->retry_at;
		case SESSION_CONNECTING:
			return session->since + PATIENCE;
		case SESSION_BUSY:
			return session->patience;
		case SESSION_IDLE:
			break;
	}
	return NEVER;
}

static void
turn_connecting(Session *session)
{
	switch (PQconnectPoll(session->conn))
	{
		case PGRES_POLLING_READING:
			session->wants = POLLIN;
			break;
		case PGRES_POLLING_WRITING:
			session->wants = POLLOUT;
			break;
		case PGRES_POLLING_OK:
			PQsetnonblocking(session->conn, 1);
			session->state = SESSION_IDLE;
			session->wants = POLLIN;
			session->pause = 0;
			break;
		default:
			remember_error(session, "08006", PQerrorMessage(session->conn));
			session_drop(session);
			break;
	}
}

/* Read what has come.  The state is SESSION_IDLE when a query has ended. */
static void
turn_connected(Session *session)
{
	int			flushed;

	if (!PQconsumeInput(session->conn) ||
		PQstatus(session->conn) == CONNECTION_BAD)
	{
		remember_error(session, "08006", PQerrorMessage(session->conn));
		session_drop(session);
		return;
	}
	for (PGnotify *notify; (notify = PQnotifies(session->conn)) != NULL;)
		PQfreemem(notify);
	if (session->state == SESSION_IDLE)
		return;

	flushed = PQflush(session->conn);
	session->wants = flushed > 0 ? POLLIN | POLLOUT : POLLIN;
	while (!PQisBusy(session->conn))
	{
		PGresult   *result = PQgetResult(session->conn);

		if (result == NULL)
		{
			session->state = SESSION_IDLE;
			return;
		}
		PQclear(session->result);
		session->result = result;
		if (PQresultStatus(result) != PGRES_TUPLES_OK &&
			PQresultStatus(result) != PGRES_COMMAND_OK)
		{
			const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

			remember_error(session, sqlstate != NULL ? sqlstate : "08006",
						   PQresultErrorMessage(result));
		}
	}
}

/* Something has happened, or it is session_wakes_at(). */
void
session_turn(Session *session)
{
	bool		is_late = clock_now() >= session_wakes_at(session);

	switch (session->state)
	{
		case SESSION_CLOSED:
			if (is_late)
				session_start(session);
			return;
		case SESSION_CONNECTING:
			turn_connecting(session);
			break;
		case SESSION_IDLE:
		case SESSION_BUSY:
			turn_connected(session);
			break;
	}
	if (is_late && (session->state == SESSION_CONNECTING ||
					session->state == SESSION_BUSY))
	{
		remember_error(session, "08006", "the server does not answer");
		session_drop(session);
	}
}

/*
 * Send a query; it takes no longer than that, or the connection is given up.
 * The answer is there when the state is SESSION_IDLE: session->result, or an
 * error with its SQLSTATE.
 */
void
session_ask(Session *session, Time at_most, const char *sql, int n_values,
			const char *const *values)
{
	PQclear(session->result);
	session->result = NULL;
	session->sqlstate[0] = '\0';
	session->since = clock_now();
	session->patience = session->since + at_most + PATIENCE;
	session->state = SESSION_BUSY;
	if (!PQsendQueryParams(session->conn, sql, n_values, NULL, values, NULL,
						   NULL, 0))
	{
		remember_error(session, "08006", PQerrorMessage(session->conn));
		session_drop(session);
		return;
	}
	session->wants = POLLIN | POLLOUT;
}

/* A field of the answer's only row; NULL for NULL, and if there is none. */
const char *
session_field(const Session *session, int column)
{
	if (session->result == NULL || PQntuples(session->result) != 1 ||
		column >= PQnfields(session->result) ||
		PQgetisnull(session->result, 0, column))
		return NULL;
	return PQgetvalue(session->result, 0, column);
}

/* ---------------------------------------------------------------------
 * At the start: is everything there?
 * ---------------------------------------------------------------------
 */

/* Connect, and wait for it; NULL, with a message: it cannot be had. */
PGconn *
connect_now(const Target *target, const char *name)
{
	PGconn	   *conn = connect_start(target, name);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	Time		until = clock_now() + PATIENCE;

	while (conn != NULL && PQstatus(conn) != CONNECTION_BAD &&
		   status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		struct pollfd socket = {
			.fd = PQsocket(conn),
			.events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT
		};

		if (poll(&socket, 1, clock_timeout(until)) == 0)
		{
			complain("the server does not answer");
			PQfinish(conn);
			return NULL;
		}
		status = PQconnectPoll(conn);
	}
	if (conn == NULL || status != PGRES_POLLING_OK)
	{
		complain("%s", conn != NULL ? PQerrorMessage(conn) : "out of memory");
		PQfinish(conn);
		return NULL;
	}
	return conn;
}

static PGresult *
ask_now(PGconn *conn, const char *sql, const char *value)
{
	PGresult   *result = PQexecParams(conn, sql, value != NULL ? 1 : 0, NULL,
									  &value, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die(EXIT_FAILED, "%s", PQresultErrorMessage(result));
	return result;
}

/* Lock ids are decimal; everything else is a name. */
static bool
is_number(const char *lock, int64_t *id)
{
	char	   *end;

	errno = 0;
	*id = strtoll(lock, &end, 10);
	if (end == lock || *end != '\0')
		return false;
	if (errno != 0)
		die(EXIT_USAGE, "lock %s is out of the range of bigint", lock);
	return true;
}

/*
 * Exits, with what to do, if this server, or our role on it, will not do.
 * Finds the extension's schema and the lock's id.
 */
void
check_server(PGconn *conn, Target *target, const char *const *functions)
{
	PGresult   *result;

	result = ask_now(conn, "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.pg_is_in_recovery(),"
					 " pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.quote_ident(current_user)"
					 " FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
					 " WHERE e.extname = 'leader_election'", NULL);
	if (PQntuples(result) == 0)
	{
		complain("database \"%s\" has no extension leader_election", PQdb(conn));
		hint("Run CREATE EXTENSION leader_election in it, or name another database with --dbname.");
		exit(EXIT_USAGE);
	}
	if (PQgetvalue(result, 0, 1)[0] == 't')
	{
		complain("the server is a standby");
		hint("Leaders are elected on the primary. Connect to it, or name all hosts: --host a,b.");
		exit(EXIT_USAGE);
	}
	target->schema = strdup(PQgetvalue(result, 0, 0));
	target->role = strdup(PQgetvalue(result, 0, 3));
	if (PQgetvalue(result, 0, 2)[0] != 't')
	{
		complain("role %s may not use schema %s, where the extension is", target->role, target->schema);
		hint("GRANT USAGE ON SCHEMA %s TO %s;", target->schema, target->role);
		exit(EXIT_USAGE);
	}
	PQclear(result);

	for (const char *const *function = functions; *function != NULL; function++)
	{
		result = ask_now(conn, "SELECT bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))"
						 " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_depend d ON d.objid = p.oid"
						 " JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid"
						 " WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'"
						 " AND e.extname = 'leader_election' AND p.proname = $1", *function);
		if (PQgetvalue(result, 0, 0)[0] != 't')
		{
			complain("role %s may not execute %s()", target->role, *function);
			hint("GRANT EXECUTE ON FUNCTION %s.%s TO %s;", target->schema, *function, target->role);
			exit(EXIT_USAGE);
		}
		PQclear(result);
	}

	if (target->lock != NULL && !is_number(target->lock, &target->lock_id))
	{
		char	   *sql = format_string("SELECT %s.le_lock_id($1)", target->schema);

		result = ask_now(conn, sql, target->lock);
		target->lock_id = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
		PQclear(result);
		free(sql);
	}
}
