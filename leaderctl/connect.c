/*-------------------------------------------------------------------------
 *
 * connect.c
 *	  Connecting, and whether all that is needed is there.
 *
 * What is wrong from the start is said before anything is started, with what to
 * do about it.
 *
 * Floor: connection.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* environ */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leaderctl.h"

/* an attempt takes no longer */
#define PATIENCE (5 * SECOND)

static bool
names_several(const char *hosts)
{
	return hosts != NULL && strchr(hosts, ',') != NULL;
}

/*
 * Start to connect.  What the user has not said: a server whose host vanishes
 * is noticed within seconds, and of several hosts only the primary will do.
 * Whatever he says of encodings, names come as table.c and JSON want them.
 */
PGconn *
connect_start(const Target *target, const char *name, const Hosts *hosts)
{
	bool		primary = getenv("PGTARGETSESSIONATTRS") == NULL &&
	(names_several(target->host) || names_several(target->dbname) ||
	 names_several(getenv("PGHOST")));

	/* what comes later wins, and dbname may be a connection string */
	const char *const keywords[] = {
		"fallback_application_name", "keepalives_idle", "keepalives_interval",
		"keepalives_count", "tcp_user_timeout", "client_encoding",
		"target_session_attrs", "dbname", "host", "port", "user", "hostaddr", NULL
	};
	const char *const values[] = {
		name, "2", "1", "3", "5000", "UTF8", primary ? "read-write" : NULL,
		target->dbname, hosts->host != NULL ? hosts->host : target->host,
		hosts->port != NULL ? hosts->port : target->port, target->user,
		hosts->hostaddr, NULL
	};

	return PQconnectStartParams(keywords, values, 1);
}

/* "a,b,c" becomes "b,c,a", in place. */
static void
rotate_list(char *list)
{
	char	   *comma = list != NULL ? strchr(list, ',') : NULL;
	size_t		head;
	char	   *copy;

	if (comma == NULL)
		return;
	head = comma - list;
	copy = strdup(list);
	if (copy == NULL)
		return;
	memmove(list, comma + 1, strlen(comma + 1));
	sprintf(list + strlen(copy) - head - 1, ",%.*s", (int) head, copy);
	free(copy);
}

/*
 * The next attempt starts from another host: libpq waits for the one it has
 * reached for as long as we let it, and would never come to those behind it.
 */
void
connect_rotate(PGconn *conn, Hosts *hosts)
{
	PQconninfoOption *options = PQconninfo(conn);

	for (PQconninfoOption *option = options; option && option->keyword; option++)
	{
		char	  **list = strcmp(option->keyword, "host") == 0 ? &hosts->host :
		strcmp(option->keyword, "hostaddr") == 0 ? &hosts->hostaddr :
		strcmp(option->keyword, "port") == 0 ? &hosts->port : NULL;

		if (list == NULL || option->val == NULL || option->val[0] == '\0')
			continue;
		free(*list);
		*list = strdup(option->val);
		rotate_list(*list);
	}
	PQconninfoFree(options);
}

static int
count_hosts(const Hosts *hosts)
{
	const char *list = hosts->host != NULL ? hosts->host : hosts->hostaddr;
	int			count = 1;

	for (; list != NULL && *list != '\0'; list++)
		count += *list == ',';
	return count;
}

/*
 * Has libpq refused what it was told, and asked nobody?  That will not be better
 * by the next attempt.
 */
static bool
is_misled(PGconn *conn)
{
	const char *error = PQerrorMessage(conn);

	return PQstatus(conn) == CONNECTION_BAD &&
		strncmp(error, "connection to server ", 21) != 0 &&
		strncmp(error, "could not translate host name ", 30) != 0 &&
		strncmp(error, "could not create socket", 23) != 0;
}

/*
 * Connect, and wait for it, starting from each host in turn.  NULL, and an error
 * in memory of its own: it cannot be had.
 */
PGconn *
connect_now(const Target *target, const char *name, char **error)
{
	Hosts		hosts = {0};
	PGconn	   *conn = NULL;

	for (int attempt = 0; attempt < count_hosts(&hosts); attempt++)
	{
		PostgresPollingStatusType status = PGRES_POLLING_WRITING;
		Time		until = clock_now() + PATIENCE;

		PQfinish(conn);
		conn = connect_start(target, name, &hosts);
		if (conn == NULL)
			die(EXIT_USAGE, "out of memory");
		if (is_misled(conn))
			die(EXIT_USAGE, "%s", PQerrorMessage(conn));
		while (PQstatus(conn) != CONNECTION_BAD && status != PGRES_POLLING_OK &&
			   status != PGRES_POLLING_FAILED && clock_now() < until)
		{
			struct pollfd socket = {
				.fd = PQsocket(conn),
				.events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT
			};

			if (poll(&socket, 1, clock_timeout(until)) > 0)
				status = PQconnectPoll(conn);
		}
		if (status == PGRES_POLLING_OK)
			return conn;
		if (PQstatus(conn) == CONNECTION_BAD || status == PGRES_POLLING_FAILED)
		{
			/* libpq has tried all of them, and says so of each */
			*error = format_string("%s", PQerrorMessage(conn));
			PQfinish(conn);
			return NULL;
		}
		connect_rotate(conn, &hosts);
	}
	PQfinish(conn);
	*error = format_string("the server does not answer");
	return NULL;
}

/* Ask, and wait for the answer; an error ends the program. */
PGresult *
ask_now(PGconn *conn, const char *sql, int n_values, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, sql, n_values, NULL, values, NULL,
									  NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die(EXIT_FAILED, "%s", without_severity(PQresultErrorMessage(result)));
	return result;
}

/* ---------------------------------------------------------------------
 * A command's environment
 * ---------------------------------------------------------------------
 */

/* Ours, to be changed for a command: we need our own as it is. */
char	  **
environment_copy(void)
{
	size_t		n = 0;
	char	  **copy;

	while (environ[n] != NULL)
		n++;
	copy = calloc(n + 1, sizeof(char *));
	if (copy == NULL)
		die(EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < n; i++)
		copy[i] = format_string("%s", environ[i]);
	return copy;
}

/* NULL: without it */
void
environment_set(char ***environment, const char *name, const char *value)
{
	size_t		length = strlen(name);
	char	  **list = *environment;
	size_t		n = 0;

	for (size_t i = 0; list[i] != NULL; i++)
	{
		if (strncmp(list[i], name, length) == 0 && list[i][length] == '=')
			free(list[i]);
		else
			list[n++] = list[i];
	}
	list[n] = NULL;
	if (value == NULL)
		return;
	list = realloc(list, (n + 2) * sizeof(char *));
	if (list == NULL)
		die(EXIT_FAILED, "out of memory");
	list[n] = format_string("%s=%s", name, value);
	list[n + 1] = NULL;
	*environment = list;
}

void
environment_free(char **environment)
{
	for (size_t i = 0; environment != NULL && environment[i] != NULL; i++)
		free(environment[i]);
	free(environment);
}

/*
 * A command that we run finds in its environment how to connect as we do, with
 * what a service file or a connection string has said made plain.
 */
void
connect_environment(PGconn *conn, char ***environment)
{
	PQconninfoOption *options = PQconninfo(conn);

	for (PQconninfoOption *option = options; option && option->keyword; option++)
	{
		bool		is_default = option->val == NULL || option->val[0] == '\0' ||
		(option->compiled != NULL && strcmp(option->val, option->compiled) == 0);

		if (option->envvar != NULL && strcmp(option->keyword, "client_encoding") != 0)
			environment_set(environment, option->envvar, is_default ? NULL : option->val);
	}
	PQconninfoFree(options);
	environment_set(environment, "PGSERVICE", NULL);	/* it would win over the
														 * others */
	environment_set(environment, "PGOPTIONS", NULL);
	environment_set(environment, "PGAPPNAME", NULL);
}

/* ---------------------------------------------------------------------
 * Is all there that is needed?
 * ---------------------------------------------------------------------
 */

/* Ask what a server that is well answers at once; NULL: it has gone. */
static PGresult *
ask_soon(PGconn *conn, const char *sql, int n_values, const char *const *values)
{
	Time		until = clock_now() + PATIENCE;
	PGresult   *result = NULL;
	PGresult   *next;

	if (!PQsendQueryParams(conn, sql, n_values, NULL, values, NULL, NULL, 0))
		return NULL;
	for (;;)
	{
		struct pollfd socket = {.fd = PQsocket(conn),.events = POLLIN};

		if (!PQisBusy(conn))
		{
			next = PQgetResult(conn);
			if (next == NULL)
				break;
			PQclear(result);
			result = next;
			continue;
		}
		if (clock_now() >= until)
			break;
		if (poll(&socket, 1, clock_timeout(until)) > 0 && !PQconsumeInput(conn))
			break;
	}
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	if (result != NULL && PQstatus(conn) == CONNECTION_OK)
		die(EXIT_FAILED, "%s", without_severity(PQresultErrorMessage(result)));
	PQclear(result);
	return NULL;
}

static bool
check_schema(PGconn *conn, Target *target, bool standby_will_do)
{
	PGresult   *result;

	result = ask_soon(conn, "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.pg_is_in_recovery(),"
					  " pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.quote_ident(current_user),"
					  " n.nspname, (SELECT pg_catalog.min(setting::bigint) FROM pg_catalog.pg_settings"
					  "   WHERE name OPERATOR(pg_catalog.=) ANY ('{statement_timeout,transaction_timeout}')"
					  "     AND setting OPERATOR(pg_catalog.<>) '0')"
					  " FROM pg_catalog.pg_extension e"
					  " JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
					  " WHERE e.extname OPERATOR(pg_catalog.=) 'leader_election'", 0, NULL);
	if (result == NULL)
		return false;
	if (PQntuples(result) == 0)
	{
		complain("database \"%s\" has no extension leader_election", PQdb(conn));
		hint("Run CREATE EXTENSION leader_election in it, or name another database with --dbname.");
		exit(EXIT_USAGE);
	}
	target->schema = strdup(PQgetvalue(result, 0, 0));
	target->role = strdup(PQgetvalue(result, 0, 3));

	/*
	 * 0: none; half of it, as the server begins to count before it waits, and
	 * not nothing, or who waits would ask without a pause
	 */
	target->wait_max = (strtoll(PQgetvalue(result, 0, 5), NULL, 10) + 1) / 2 * MS;
	if (target->wanted_schema != NULL && strcmp(target->wanted_schema, PQgetvalue(result, 0, 4)) != 0)
		die(EXIT_USAGE, "the extension of database \"%s\" is in schema %s, not in \"%s\"",
			PQdb(conn), target->schema, target->wanted_schema);
	if (PQgetvalue(result, 0, 1)[0] == 't' && !standby_will_do)
	{
		complain("the server is a standby");
		hint("Leaders are elected on the primary. Connect to it, or name all hosts: --host a,b.");
		exit(EXIT_USAGE);
	}
	if (PQgetvalue(result, 0, 2)[0] != 't')
	{
		complain("role %s may not use schema %s, where the extension is", target->role, target->schema);
		hint("GRANT USAGE ON SCHEMA %s TO %s;", target->schema, target->role);
		exit(EXIT_USAGE);
	}
	PQclear(result);
	return true;
}

static bool
is_view(const char *name)
{
	return strncmp(name, "leader_", 7) == 0;
}

/* Does pg_monitor have it? */
static bool
is_for_monitoring(const char *name)
{
	return is_view(name) || strcmp(name, "le_info") == 0 || strcmp(name, "le_leases") == 0 ||
		strcmp(name, "le_waiters") == 0 || strcmp(name, "le_terms") == 0;
}

/*
 * All grants that are missing are named at once.  Who only looks is better off
 * with one that also shows what others wait for.
 */
static bool
check_grants(PGconn *conn, const Target *target, const char *const *needed,
			 bool is_to_look)
{
	int			n_missing = 0;
	bool		is_named = false;	/* pg_monitor */

	for (const char *const *name = needed; *name != NULL; name++)
	{
		PGresult   *result;

		if (is_view(*name))
			result = ask_soon(conn, "SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT'))"
							  " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) c.oid"
							  " JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid"
							  " WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
							  " AND d.deptype OPERATOR(pg_catalog.=) 'e'"
							  " AND e.extname OPERATOR(pg_catalog.=) 'leader_election' AND c.relname OPERATOR(pg_catalog.=) $1", 1, name);
		else
			result = ask_soon(conn, "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))"
							  " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) p.oid"
							  " JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid"
							  " WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass"
							  " AND d.deptype OPERATOR(pg_catalog.=) 'e'"
							  " AND e.extname OPERATOR(pg_catalog.=) 'leader_election' AND p.proname OPERATOR(pg_catalog.=) $1", 1, name);
		if (result == NULL)
			return false;
		if (PQgetvalue(result, 0, 0)[0] != 't')
		{
			if (n_missing++ == 0)
				complain("role %s may not do this", target->role);
			if (!is_to_look || !is_for_monitoring(*name))
				hint("GRANT %s%s.%s TO %s;", is_view(*name) ? "SELECT ON " : "EXECUTE ON FUNCTION ",
					 target->schema, *name, target->role);
			else if (!is_named)
			{
				hint("GRANT pg_monitor TO %s;", target->role);
				is_named = true;
			}
		}
		PQclear(result);
	}
	if (n_missing > 0)
		exit(EXIT_USAGE);
	return true;
}

/* How long we can wait if we would for so long */
Time
target_wait(const Target *target, Time longest)
{
	return target->wait_max > 0 && target->wait_max < longest ? target->wait_max : longest;
}

/* Locks are numbers; what is not is a name, and main.c has looked at it. */
static bool
find_lock_id(PGconn *conn, Target *target)
{
	size_t		n_digits = strspn(target->lock, "-0123456789");

	if (target->lock[n_digits] == '\0')
		snprintf(target->lock_id, sizeof(target->lock_id), "%lld", strtoll(target->lock, NULL, 10));
	else
	{
		char	   *sql = format_string("SELECT %s.le_lock_id($1)", target->schema);
		PGresult   *result = ask_soon(conn, sql, 1, &target->lock);

		free(sql);
		if (result == NULL)
			return false;
		snprintf(target->lock_id, sizeof(target->lock_id), "%s", PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	return true;
}

/*
 * Exits, with what to do, if this server, or our role on it, will not do.
 * needed: names of functions and views that must be usable.  Finds the
 * extension's schema and the lock's id.  False: it does not answer any more.
 */
bool
check_server(PGconn *conn, Target *target, const char *const *needed,
			 bool standby_will_do)
{
	return check_schema(conn, target, standby_will_do) &&
		check_grants(conn, target, needed, standby_will_do) &&
		(target->lock == NULL || find_lock_id(conn, target));
}

/* Is there a server that will do?  If not, *error says why, in memory of its own. */
bool
find_server(Target *target, const char *name, const char *const *needed, char **error)
{
	PGconn	   *conn = connect_now(target, name, error);
	bool		is_there;

	if (conn == NULL)
		return false;
	is_there = check_server(conn, target, needed, false);
	if (!is_there)
		*error = format_string("the server does not answer any more");
	PQfinish(conn);
	return is_there;
}

/* A connection for a command that asks and goes, or the end of the program */
PGconn *
connect_checked(Target *target, const char *name, const char *const *needed,
				bool standby_will_do)
{
	char	   *error;
	PGconn	   *conn = connect_now(target, name, &error);

	if (conn == NULL)
		die(EXIT_USAGE, "%s", error);
	if (!check_server(conn, target, needed, standby_will_do))
		die(EXIT_USAGE, "the server does not answer any more");
	return conn;
}
