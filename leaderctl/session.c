/*-------------------------------------------------------------------------
 *
 * session.c
 *	  A connection that never blocks: connecting, asking, starting anew.
 *
 * Nothing here blocks once a Session is open, but for the look-up of a host's
 * name, which libpq does by itself; whoever must end something in time does not
 * rely on this file.
 *
 * Floor: connection.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leaderctl.h"

/* between attempts to connect: doubled each time, up to a third of the patience */
#define PAUSE_MIN (100 * MS)

/* ---------------------------------------------------------------------
 * Connecting
 * ---------------------------------------------------------------------
 */

static void
remember_error(Session *session, const char *sqlstate, const char *message)
{
	size_t		length;

	message = without_severity(message);
	length = strlen(message);
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
	session->conn = connect_start(session->target, session->name, &session->hosts);
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
session_open(Session *session, const Target *target, const char *name,
			 Time patience)
{
	memset(session, 0, sizeof(Session));
	session->target = target;
	session->name = name;
	session->patience = patience;
	session_start(session);
}

/* This host will not do: the next attempt starts from another one. */
void
session_rotate(Session *session)
{
	if (session->conn != NULL)
		connect_rotate(session->conn, &session->hosts);
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
	if (session->pause > session->patience / 3)
		session->pause = session->patience / 3;
	session->retry_at = clock_now() +
		session->pause / 2 + session->pause / 2 * (random() % 1000) / 1000;
}

void
session_close(Session *session)
{
	PQfinish(session->conn);
	PQclear(session->result);
	free(session->error);
	free(session->shown);
	free(session->hosts.host);
	free(session->hosts.hostaddr);
	free(session->hosts.port);
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
			return session->since + session->patience;
		case SESSION_BUSY:
			return session->late_at;
		case SESSION_IDLE:
			break;
	}
	return NEVER;
}

/*
 * libpq takes the connection to be there when it is asked, and would wait for it
 * without end if it is not.
 */
static void
turn_connecting(Session *session)
{
	struct pollfd socket = {
		.fd = session_fd(session),.events = session_events(session)
	};

	if (poll(&socket, 1, 0) <= 0)
		return;
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
	{
		session->was_notified = true;
		PQfreemem(notify);
	}
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
			if (session->sqlstate[0] == '\0')
				session->pause = 0; /* it is good for something */
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
		session_rotate(session);
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
	session->late_at = session->since + at_most + session->patience;
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

/* Ask the server to end the query that we wait for, without waiting for that. */
void
session_cancel(Session *session)
{
	PGcancel   *cancel;

	if (session->state != SESSION_BUSY)
		return;
	cancel = PQgetCancel(session->conn);
	if (cancel != NULL && fork() == 0)
	{
		char		error[256];

		(void) PQcancel(cancel, error, sizeof(error));
		_exit(0);
	}
	PQfreeCancel(cancel);
}

/* Show the error, once, however often it comes. */
void
session_complain(Session *session)
{
	if (session->error != NULL)
		complain_anew(format_string("%s", session->error), &session->shown);
}
