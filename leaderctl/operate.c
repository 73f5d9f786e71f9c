/*-------------------------------------------------------------------------
 *
 * operate.c
 *	  resign, revoke, transfer, release.
 *
 * One call each, and one line that says what has come of it.  Who is interrupted
 * while it waits (for a guarded transaction that is being committed) cancels the
 * call: the server would carry it out later.
 *
 * Floor: commands.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"

static PGcancel *cancel = NULL; /* of the call that is under way */

/* PQcancel() may be called from a signal handler */
static void
on_signal(int signal)
{
	char		error[256];

	(void) signal;
	(void) !PQcancel(cancel, error, sizeof(error));
}

/* Details and hints come each in a line of its own. */
static void
tell_rest(const PGresult *result)
{
	const char *more = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *advice = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	if (more != NULL)
		detail("%s", more);
	if (advice != NULL)
		hint("%s", advice);
}

static void
on_notice(void *arg, const PGresult *result)
{
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	(void) arg;
	if (text == NULL)
		return;
	warn("%s", text);
	tell_rest(result);
}

static PGconn *
operate_connect(Target *target, const char *name, const char *needed)
{
	const char *const all_needed[] = {needed, NULL};
	PGconn	   *conn = connect_checked(target, name, all_needed, false);

	/* who is impatient sends it twice: the server may not be there to cancel */
	struct sigaction action = {
		.sa_handler = on_signal,.sa_flags = SA_RESTART | SA_RESETHAND | SA_NODEFER
	};

	PQsetNoticeReceiver(conn, on_notice, NULL);
	cancel = PQgetCancel(conn);
	if (cancel != NULL)
	{
		sigaction(SIGINT, &action, NULL);
		sigaction(SIGTERM, &action, NULL);
	}
	return conn;
}

/* Call a function of the extension that says yes or no; an error is the end. */
static bool
operate_call(PGconn *conn, const Target *target, const char *call, int n_values,
			 const char *const *values)
{
	char	   *sql = format_string("SELECT %s.%s", target->schema, call);
	PGresult   *result = PQexecParams(conn, sql, n_values, NULL, values, NULL, NULL, 0);
	bool		answer;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

		complain("%s", text != NULL ? text : PQerrorMessage(conn));
		tell_rest(result);
		exit(EXIT_FAILED);
	}
	answer = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	free(sql);
	return answer;
}


int
resign_command(Target *target, const Options *options)
{
	PGconn	   *conn = operate_connect(target, PROGNAME " resign", "le_request_resign");
	const char *const values[] = {target->lock_id};
	bool		is_asked = operate_call(conn, target, "le_request_resign($1)", 1, values);

	(void) options;
	if (is_asked)
		say("has asked the leader of lock %s to resign", target->lock);
	else
		complain("nobody leads lock %s", target->lock);
	PQfinish(conn);
	return is_asked ? 0 : EXIT_FAILED;
}

int
revoke_command(Target *target, const Options *options)
{
	PGconn	   *conn = operate_connect(target, PROGNAME " revoke", "le_revoke");
	const char *const values[] = {target->lock_id, options->immediately ? "true" : "false"};
	bool		is_revoked = operate_call(conn, target, "le_revoke($1, $2)", 2, values);

	if (!is_revoked)
		complain(options->immediately ? "nothing keeps anybody from lock %s" :
				 "nobody leads lock %s", target->lock);
	else if (options->immediately)
		say("has revoked lock %s: others may lead at once", target->lock);
	else
		say("has revoked lock %s: others may lead when the lease would have run out", target->lock);
	PQfinish(conn);
	return is_revoked ? 0 : EXIT_FAILED;
}

/* Why has le_transfer() said no?  Others may have changed it since. */
static void
explain_no_transfer(PGconn *conn, const Target *target, const Options *options)
{
	char	   *function = format_string("%s.le_is_leader(bigint, pg_catalog.text, bigint)",
										 target->schema);
	const char *const name[] = {function};
	const char *const values[] = {target->lock_id, options->instance, options->token};
	PGresult   *result = ask_now(conn, "SELECT pg_catalog.has_function_privilege($1, 'EXECUTE')",
								 1, name);
	bool		may_ask = PQgetvalue(result, 0, 0)[0] == 't';

	PQclear(result);
	free(function);
	if (options->successor == NULL && !may_ask)
		complain("nobody waits for lock %s, or \"%s\" does not lead it in term %s",
				 target->lock, options->instance, options->token);
	else if (options->successor == NULL &&
			 operate_call(conn, target, "le_is_leader($1, $2, $3)", 3, values))
	{
		complain("nobody waits for lock %s", target->lock);
		hint("Name who shall lead with --successor, or end the term with \"%s release\".", PROGNAME);
	}
	else
		complain("\"%s\" does not lead lock %s in term %s", options->instance, target->lock,
				 options->token);
}

int
transfer_command(Target *target, const Options *options)
{
	PGconn	   *conn = operate_connect(target, PROGNAME " transfer", "le_transfer");
	const char *const values[] = {target->lock_id, options->instance, options->token,
	options->successor};
	bool		is_done = operate_call(conn, target, "le_transfer($1, $2, $3, $4)", 4, values);

	if (!is_done)
		explain_no_transfer(conn, target, options);
	else if (options->successor != NULL)
		say("has handed lock %s over to \"%s\"", target->lock, options->successor);
	else
		say("has handed lock %s over to the first that waits", target->lock);
	PQfinish(conn);
	return is_done ? 0 : EXIT_FAILED;
}

int
release_command(Target *target, const Options *options)
{
	PGconn	   *conn = operate_connect(target, PROGNAME " release", "le_release");
	char	   *hold = format_string("%" PRId64, options->hold / MS);
	const char *const values[] = {target->lock_id, options->instance, options->token, hold};
	bool		is_done = operate_call(conn, target, "le_release($1, $2, $3, $4)", 4, values);

	if (!is_done)
		complain("\"%s\" does not lead lock %s in term %s", options->instance, target->lock,
				 options->token);
	else if (options->hold > 0)
		say("has released lock %s: nobody leads before the term is %s old", target->lock,
			duration_text(options->hold));
	else
		say("has released lock %s", target->lock);
	PQfinish(conn);
	free(hold);
	return is_done ? 0 : EXIT_FAILED;
}
