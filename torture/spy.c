/*
 * spy.c
 *	  What leaderctl asks and what it is told: preloaded into it by the nemesis.
 *
 * Stands between leaderctl and libpq, and writes the lines S and A of client.c,
 * into a file in the directory TORTURE_SPY that is named as the instance is.  The
 * line of a call is written before it is sent, and that of an answer before
 * leaderctl has it.  What it believes shows in what its command does, command.c.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "log.h"

static int64_t calls = 0;
static PGconn *asked = NULL;	/* on which a call is under way */
static const char *what;		/* it is */
static char answer[256];
static bool failed;
static char lease[24] = "0";

static void *
real(const char *name)
{
	void	   *function = dlsym(RTLD_NEXT, name);

	if (function == NULL)
		abort();
	return function;
}

/* The name is known with the first question; what we run needs no spy. */
static void
open_log(const char *instance)
{
	char		path[512];

	snprintf(path, sizeof(path), "%s/%s", getenv("TORTURE_SPY"), instance);
	log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0)
		abort();
	unsetenv("LD_PRELOAD");
	unsetenv("TORTURE_SPY");
	note("P %" PRId64 " %s %d", now(), instance, (int) getpid());
}

/* Which of the calls that the checker judges is this? */
static const char *
name_of(const char *sql)
{
	static const char *const names[] = {"campaign", "keep_alive", "transfer", "release"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		char		call[32];

		snprintf(call, sizeof(call), ".le_%s($1, $2, $3", names[i]);
		if (strstr(sql, call) != NULL)
			return names[i];
	}
	return NULL;
}

/*
 * Their arguments are lock, instance, lease or token, and how long it waits or
 * the hold.
 */
int
PQsendQueryParams(PGconn *conn, const char *sql, int n_values,
				  const Oid *types, const char *const *values,
				  const int *lengths, const int *formats, int format)
{
	int			(*send) (PGconn *, const char *, int, const Oid *, const char *const *,
						 const int *, const int *, int) = real("PQsendQueryParams");
	const char *name = name_of(sql);

	if (name != NULL)
	{
		bool		campaigns = strcmp(name, "campaign") == 0;

		if (log_fd < 0)
			open_log(values[1]);
		if (campaigns)
			snprintf(lease, sizeof(lease), "%s", values[2]);
		asked = conn;
		what = name;
		failed = false;
		strcpy(answer, "LOST");
		note("S %" PRId64 " %" PRId64 " 1 %s %s %s %s 0 %s", now(), ++calls, name,
			 values[0], campaigns ? "0" : values[2], lease,
			 n_values > 3 ? values[3] : strcmp(name, "release") == 0 ? "0" : "-");
	}
	return send(conn, sql, n_values, types, values, lengths, formats, format);
}

/* A column of the answer's only row, or - */
static const char *
column(const PGresult *result, const char *name)
{
	int			number = PQfnumber(result, name);

	if (number < 0 || PQntuples(result) != 1 || PQgetisnull(result, 0, number))
		return "-";
	return PQgetvalue(result, 0, number);
}

static void
read_answer(const PGresult *result)
{
	const char *state;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		failed = (state != NULL);
		if (failed)
			snprintf(answer, sizeof(answer), "ERROR:%s", state);
	}
	else if (strcmp(what, "campaign") == 0)
		snprintf(answer, sizeof(answer), "%s %s %s %s", column(result, "elected"),
				 column(result, "token"), column(result, "valid_for_ms"),
				 column(result, "resign_requested"));
	else if (strcmp(what, "keep_alive") == 0)
		snprintf(answer, sizeof(answer), "%s %s %s -", column(result, "leads"),
				 column(result, "valid_for_ms"), column(result, "resign_requested"));
	else
		snprintf(answer, sizeof(answer), "%s", PQgetisnull(result, 0, 0) ? "-" :
				 PQgetvalue(result, 0, 0));
}

static void
note_answer(const char *text)
{
	note("A %" PRId64 " %" PRId64 " %s", now(), calls, text);
	asked = NULL;
}

PGresult *
PQgetResult(PGconn *conn)
{
	PGresult   *(*get) (PGconn *) = real("PQgetResult");
	PGresult   *result = get(conn);

	if (conn == asked && result == NULL)
		note_answer(answer);
	else if (conn == asked && !failed)
		read_answer(result);
	return result;
}

/* Given up: the backend is gone, or we do not know. */
void
PQfinish(PGconn *conn)
{
	void		(*finish) (PGconn *) = real("PQfinish");

	if (conn != NULL && conn == asked)
		note_answer(failed || PQstatus(conn) == CONNECTION_BAD ? answer : "TIMEOUT");
	finish(conn);
}
