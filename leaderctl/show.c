/*-------------------------------------------------------------------------
 *
 * show.c
 *	  status, history, warnings.
 *
 * Floor: commands.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"
static bool
may_observe(PGconn *conn, const Target *target)
{
	char	   *function = format_string("%s.le_observe(bigint, bigint, bigint)", target->schema);
	const char *const values[] = {function};
	PGresult   *result = ask_now(conn, "SELECT pg_catalog.has_function_privilege($1, 'EXECUTE')",
								 1, values);
	bool		it_may = PQgetvalue(result, 0, 0)[0] == 't';

	PQclear(result);
	free(function);
	return it_may;
}

int
status_command(Target *target, const Options *options)
{
	static const char *const needed_to_wait[] = {"le_observe", NULL};
	PGconn	   *conn = connect_checked(target, PROGNAME " status", status_needs, true);
	bool		is_led;
	Status		status;
	char	   *sql;

	if (options->watch && target->lock != NULL)
		(void) check_server(conn, target, needed_to_wait, true);
	sql = status_sql(target, may_observe(conn, target));
	terminal_init();
	if (options->watch)
	{
		PQfinish(conn);
		return follow_status(target, options, sql);
	}

	status.at = clock_now();
	status.result = ask_now(conn, sql, 2, status_values(target));
	if (options->json)
		status_write_json(&status, target, false, stdout);
	else
		status_write(&status, target, false, stdout);
	flush_output();
	is_led = status_is_led(&status);
	PQclear(status.result);
	PQfinish(conn);
	free(sql);
	return target->lock == NULL || is_led ? 0 : EXIT_NOT_LED;
}

/* ---------------------------------------------------------------------
 * history
 * ---------------------------------------------------------------------
 */

enum
{
	COL_LOCK, COL_BEGAN, COL_LASTED_MS, COL_INSTANCE, COL_HOW, COL_BY,
	COL_RENEWALS, COL_LEAST_MS, COL_JSON
};

/* The date is of no use where all is of today */
static const char sql_history[] =
"WITH term AS ("
"  SELECT * FROM %1$s.leader_history WHERE $1::bigint IS NULL OR lock_id OPERATOR(pg_catalog.=) $1"
"  ORDER BY ended DESC, token DESC LIMIT $2::bigint)"
" SELECT lock_id, pg_catalog.to_char(began, CASE WHEN pg_catalog.date_trunc('day', pg_catalog.min(began) OVER ())"
"          OPERATOR(pg_catalog.=) pg_catalog.date_trunc('day', pg_catalog.now()) THEN 'HH24:MI:SS' ELSE 'MM-DD HH24:MI' END),"
"        (pg_catalog.date_part('epoch', ended OPERATOR(pg_catalog.-) began) OPERATOR(pg_catalog.*) 1000)::bigint,"
"        instance, ended_how, ended_by, renewals, least_left_ms,"
"        pg_catalog.json_build_object('lock', lock_id, 'instance', instance, 'token', token, 'role', leader_role,"
"          'lease_ms', lease_ms, 'began', began, 'ended', ended, 'ended_how', ended_how, 'ended_by', ended_by,"
"          'renewals', renewals, 'least_left_ms', least_left_ms)"
" FROM term ORDER BY ended DESC, token DESC";

static void
write_history(PGresult *result)
{
	static const TableColumn columns[] = {
		{"lock", false, false}, {"began", false, false}, {"lasted", true, false},
		{"instance", false, true}, {"ended", false, true}, {"by", false, true},
		{"beats", true, false}, {"least", true, false}
	};
	Table		table;

	table_begin(&table, columns, COL_JSON);
	for (int row = 0; row < PQntuples(result); row++)
	{
		for (int column = 0; column < COL_JSON; column++)
		{
			const char *text = PQgetvalue(result, row, column);

			if (PQgetisnull(result, row, column))
				text = "-";
			else if (column == COL_LASTED_MS || column == COL_LEAST_MS)
				text = span_text(strtoll(text, NULL, 10));
			table_add(&table, text, COLOUR_NONE);
		}
	}
	table_write(&table, stdout);
}

int
history_command(Target *target, const Options *options)
{
	static const char *const needed[] = {"leader_history", "le_terms", NULL};
	PGconn	   *conn = connect_checked(target, PROGNAME " history", needed, true);
	char	   *sql = format_string(sql_history, target->schema);
	char	   *limit = format_string("%d", options->limit);
	const char *const values[] = {target->lock != NULL ? target->lock_id : NULL, limit};
	PGresult   *result = ask_now(conn, sql, 2, values);

	terminal_init();
	if (!options->json)
		write_history(result);
	else
	{
		fputc('[', stdout);
		for (int row = 0; row < PQntuples(result); row++)
		{
			fputs(row > 0 ? ",\n " : "", stdout);
			text_write_json(stdout, PQgetvalue(result, row, COL_JSON), false);
		}
		fputs("]\n", stdout);
	}
	flush_output();
	PQclear(result);
	PQfinish(conn);
	free(limit);
	free(sql);
	return 0;
}

/* ---------------------------------------------------------------------
 * warnings
 * ---------------------------------------------------------------------
 */

int
warnings_command(Target *target, const Options *options)
{
	static const char *const needed[] = {"le_info", NULL};
	PGconn	   *conn = connect_checked(target, PROGNAME " warnings", needed, true);
	char	   *sql = format_string("SELECT pg_catalog.unnest(warnings) FROM %s.le_info()", target->schema);
	PGresult   *result = ask_now(conn, sql, 0, NULL);
	int			n_warnings = PQntuples(result);

	(void) options;
	terminal_init();
	for (int row = 0; row < n_warnings; row++)
	{
		char	   *warning = text_printable(PQgetvalue(result, row, 0));

		puts(warning);
		free(warning);
	}
	flush_output();
	PQclear(result);
	PQfinish(conn);
	free(sql);
	return n_warnings == 0 ? 0 : EXIT_FAILED;
}
