/*-------------------------------------------------------------------------
 *
 * main.c
 *	  The command line of leaderctl.
 *
 * Two tables say all: what commands there are, and what options, with the
 * commands that take each.  The help comes from them.
 *
 * Floor: roof.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"

#define DAY (86400 * SECOND)
#define YEAR (365 * DAY)

/* ---------------------------------------------------------------------
 * Commands
 * ---------------------------------------------------------------------
 */

/* as bits, for the options that they take */
#define RUN (1 << 0)
#define WATCH (1 << 1)
#define STATUS (1 << 2)
#define HISTORY (1 << 3)
#define RESIGN (1 << 4)
#define REVOKE (1 << 5)
#define TRANSFER (1 << 6)
#define RELEASE (1 << 7)
#define WARNINGS (1 << 8)
#define ALL INT_MAX

static const struct Command
{
	const char *name;
	int			bit;
	int			(*function) (Target *target, const Options *options);
	bool		needs_lock;
	bool		takes_command;
	const char *does;
}			commands[] = {

	{"run", RUN, run_command, true, true,
	"run a command while this process leads"},
	{"watch", WATCH, watch_command, true, true,
	"run a command at each change of leader"},
	{"status", STATUS, status_command, false, false,
	"who leads, for how long, and why nobody does"},
	{"history", HISTORY, history_command, false, false,
	"the terms that have ended, the latest first"},
	{"resign", RESIGN, resign_command, true, false,
	"ask the leader to hand over"},
	{"revoke", REVOKE, revoke_command, true, false,
	"end a term against its leader's will"},
	{"transfer", TRANSFER, transfer_command, true, false,
	"hand over a term that you hold"},
	{"release", RELEASE, release_command, true, false,
	"end a term that you hold"},
	{"warnings", WARNINGS, warnings_command, false, false,
	"what an administrator should mend; status 1 if there is any"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* ---------------------------------------------------------------------
 * Options
 * ---------------------------------------------------------------------
 */

enum
{
	OPT_SCHEMA = 256, OPT_INSTANCE, OPT_LEASE, OPT_RENEW, OPT_JITTER,
	OPT_KILL_AFTER, OPT_PRIORITY, OPT_YIELD, OPT_INFO, OPT_MAX_TERM, OPT_WAIT,
	OPT_ONCE, OPT_AT_MOST_EVERY, OPT_HEALTH, OPT_HEALTH_EVERY,
	OPT_HEALTH_FAILURES, OPT_SIT_OUT, OPT_STATUS_FILE, OPT_WATCH, OPT_FORMAT,
	OPT_LIMIT, OPT_IMMEDIATELY, OPT_TOKEN, OPT_SUCCESSOR, OPT_HOLD, OPT_HELP
};

static const struct Option
{
	int			key;			/* a letter, or one of the above */
	const char *name;
	const char *argument;		/* what it is called in the help; NULL: none */
	int			commands;		/* that take it */
	const char *help;
}			options_table[] = {
	{'l', "lock", "LOCK", ALL & ~WARNINGS, "the lock: a number, or a name"},
	{OPT_INSTANCE, "instance", "NAME", RUN, "what our name begins with (the host's name)"},
	{OPT_LEASE, "lease", "DURATION", RUN, "length of the lease (10s)"},
	{OPT_RENEW, "renew", "DURATION", RUN, "time between heartbeats (3s)"},
	{OPT_JITTER, "jitter", "DURATION", RUN, "random deviation of that (2s)"},
	{OPT_KILL_AFTER, "kill-after", "DURATION", RUN, "from SIGTERM for the command to SIGKILL (1s)"},
	{OPT_PRIORITY, "priority", "N", RUN, "0 to 9: the largest of those who wait leads (0)"},
	{OPT_YIELD, "yield", NULL, RUN, "hand over when a larger priority waits"},
	{OPT_INFO, "info", "TEXT", RUN, "told to followers, an address for example"},
	{OPT_MAX_TERM, "max-term", "DURATION", RUN, "hand over after so long"},
	{OPT_WAIT, "wait", "DURATION", RUN, "give up if not elected by then (never)"},
	{OPT_ONCE, "once", NULL, RUN, "exit when the command has, with its status"},
	{OPT_AT_MOST_EVERY, "at-most-every", "DURATION", RUN, "nobody leads again before a term is that old"},
	{OPT_HEALTH, "health", "COMMAND", RUN, "shell command that fails when ours does not work"},
	{OPT_HEALTH_EVERY, "health-every", "DURATION", RUN, "from one check to the next, and its limit (5s)"},
	{OPT_HEALTH_FAILURES, "health-failures", "N", RUN, "hand over after so many in a row (3)"},
	{OPT_SIT_OUT, "sit-out", "DURATION", RUN, "then do not lead for so long (the lease)"},
	{OPT_STATUS_FILE, "status-file", "PATH", RUN, "keep who leads in this file, as JSON"},
	{OPT_WATCH, "watch", NULL, STATUS, "show it again at each change, until interrupted"},
	{OPT_FORMAT, "format", "FORMAT", STATUS | HISTORY, "table or json (table)"},
	{OPT_LIMIT, "limit", "N", HISTORY, "so many terms (20)"},
	{OPT_IMMEDIATELY, "immediately", NULL, REVOKE, "others may lead at once: first stop the leader"},
	{OPT_INSTANCE, "instance", "NAME", TRANSFER | RELEASE, "who holds the term: you"},
	{OPT_TOKEN, "token", "TOKEN", TRANSFER | RELEASE, "of the term"},
	{OPT_SUCCESSOR, "successor", "NAME", TRANSFER, "who leads then (the first that waits)"},
	{OPT_HOLD, "hold", "DURATION", RELEASE, "nobody leads before the term is that old"},
	{'h', "host", "HOSTNAME", ALL, "server host or socket directory; a,b: several"},
	{'p', "port", "PORT", ALL, "database server port"},
	{'U', "username", "USERNAME", ALL, "user name to connect as"},
	{'d', "dbname", "DBNAME", ALL, "database name, or connection string"},
	{'w', "no-password", NULL, ALL, "never prompt for a password (it never does)"},
	{OPT_SCHEMA, "schema", "SCHEMA", ALL, "the extension's (found by itself)"},
	{'q', "quiet", NULL, ALL, "say nothing but errors"},
	{'V', "version", NULL, ALL, "output version information, then exit"},
	{OPT_HELP, "help", NULL, ALL, "show this help, then exit"},
};

#define N_OPTIONS (sizeof(options_table) / sizeof(options_table[0]))

static void
option_help(const struct Option *option)
{
	char		text[64];

	int			letter = option->key == OPT_HELP ? '?' : option->key;

	snprintf(text, sizeof(text), "%c%c%c --%s%s%s",
			 letter < 256 ? '-' : ' ', letter < 256 ? letter : ' ', letter < 256 ? ',' : ' ',
			 option->name, option->argument != NULL ? "=" : "",
			 option->argument != NULL ? option->argument : "");
	printf("  %-29s %s\n", text, option->help);
}

static void
usage(const struct Command *command)
{
	printf("%s leads, and runs a command while it does, by locks of leader_election.\n\nUsage:\n",
		   PROGNAME);
	if (command == NULL)
	{
		printf("  %s COMMAND [OPTION]...\n\nCommands:\n", PROGNAME);
		for (size_t i = 0; i < N_COMMANDS; i++)
			printf("  %-10s %s\n", commands[i].name, commands[i].does);
		printf("\nOptions of all commands:\n");
	}
	else
		printf("  %s %s%s [OPTION]...%s\n\nOptions:\n", PROGNAME, command->name,
			   command->needs_lock ? " --lock=LOCK" : "",
			   command->takes_command ? " -- COMMAND [ARGUMENT]..." : "");
	for (size_t i = 0; i < N_OPTIONS; i++)
	{
		int			takes = options_table[i].commands;

		if (command != NULL ? (takes & command->bit) != 0 : takes == ALL)
			option_help(&options_table[i]);
	}
	if (command == NULL)
		printf("\n\"%s COMMAND --help\" shows those of a command.\n", PROGNAME);
	printf("\nA duration has its unit: 500ms, 10s, 5min, 23h, 1d.  The environment's PG*\n"
		   "variables and service files say where to connect, as for psql.\n");
}

static void
try_help(const struct Command *command)
{
	hint("Try \"%s%s%s --help\" for more information.", PROGNAME,
		 command != NULL ? " " : "", command != NULL ? command->name : "");
	exit(EXIT_USAGE);
}

/* ---------------------------------------------------------------------
 * Arguments
 * ---------------------------------------------------------------------
 */

static Time
duration_argument(const char *name, const char *text, Time min, Time max)
{
	Time		duration;

	if (!duration_parse(text, &duration))
		die(EXIT_USAGE, "--%s \"%s\" is not a duration such as 500ms, 10s or 23h", name, text);
	if (duration < min || duration > max)
		die(EXIT_USAGE, "--%s %s is outside the range %s to %s", name, text,
			duration_text(min), duration_text(max));
	return duration;
}

static int
number_argument(const char *name, const char *text, int min, int max)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(text, &end, 10);
	if (end == text || *end != '\0')
		die(EXIT_USAGE, "--%s \"%s\" is not a number", name, text);
	if (errno != 0 || number < min || number > max)
		die(EXIT_USAGE, "--%s %s is outside the range %d to %d", name, text, min, max);
	return (int) number;
}

static const char *
text_argument(const char *name, const char *text, size_t min, size_t max)
{
	size_t		length = strlen(text);

	if (length < min || length > max)
		die(EXIT_USAGE, "--%s \"%s\" has %zu bytes, which is outside the range %zu to %zu",
			name, text, length, min, max);
	return text;
}

/* The option --name, or -letter, with this argument, has been given. */
static void
take_option(const struct Option *option, const char *argument, Target *target,
			Options *options)
{
	const char *name = option->name;

	switch (option->key)
	{
		case 'l':
			target->lock = argument;
			break;
		case 'h':
			target->host = argument;
			break;
		case 'p':
			target->port = argument;
			break;
		case 'U':
			target->user = argument;
			break;
		case 'd':
			target->dbname = argument;
			break;
		case 'w':
			break;
		case 'q':
			quiet = true;
			break;
		case OPT_SCHEMA:
			target->wanted_schema = argument;
			break;
		case OPT_INSTANCE:
			/* of a server's 127 bytes, run adds some */
			options->instance = text_argument(name, argument, 1,
											  (option->commands & RUN) ? 100 : 127);
			break;
		case OPT_LEASE:
			options->lease = duration_argument(name, argument, 100 * MS, DAY);
			break;
		case OPT_RENEW:
			options->renew = duration_argument(name, argument, 10 * MS, DAY);
			break;
		case OPT_JITTER:
			options->jitter = duration_argument(name, argument, 0, DAY);
			break;
		case OPT_KILL_AFTER:
			options->kill_after = duration_argument(name, argument, 0, DAY);
			break;
		case OPT_PRIORITY:
			options->priority = number_argument(name, argument, 0, 9);
			break;
		case OPT_YIELD:
			options->yield = true;
			break;
		case OPT_INFO:
			options->info = text_argument(name, argument, 0, 512);
			break;
		case OPT_MAX_TERM:
			options->max_term = duration_argument(name, argument, SECOND, YEAR);
			break;
		case OPT_WAIT:
			options->wait = duration_argument(name, argument, 0, YEAR);
			break;
		case OPT_ONCE:
			options->once = true;
			break;
		case OPT_AT_MOST_EVERY:
			options->at_most_every = duration_argument(name, argument, MS, DAY);
			break;
		case OPT_HEALTH:
			options->health = text_argument(name, argument, 1, 10000);
			break;
		case OPT_HEALTH_EVERY:
			options->health_every = duration_argument(name, argument, 200 * MS, DAY);
			break;
		case OPT_HEALTH_FAILURES:
			options->health_failures = number_argument(name, argument, 1, 1000);
			break;
		case OPT_SIT_OUT:
			options->sit_out = duration_argument(name, argument, 0, DAY);
			break;
		case OPT_STATUS_FILE:
			options->status_file = text_argument(name, argument, 1, PATH_MAX - 8);
			break;
		case OPT_WATCH:
			options->watch = true;
			break;
		case OPT_FORMAT:
			if (strcmp(argument, "table") != 0 && strcmp(argument, "json") != 0)
				die(EXIT_USAGE, "--%s \"%s\" is neither \"table\" nor \"json\"", name, argument);
			options->json = argument[0] == 'j';
			break;
		case OPT_LIMIT:
			options->limit = number_argument(name, argument, 1, 100000);
			break;
		case OPT_IMMEDIATELY:
			options->immediately = true;
			break;
		case OPT_TOKEN:
			options->token = text_argument(name, argument, 1, 19);
			if (argument[strspn(argument, "0123456789")] != '\0')
				die(EXIT_USAGE, "--%s \"%s\" is not a number", name, argument);
			errno = 0;
			if (strtoll(argument, NULL, 10) == 0 || errno != 0)
				die(EXIT_USAGE, "--%s %s is outside the range 1 to %lld", name, argument, LLONG_MAX);
			break;
		case OPT_SUCCESSOR:
			options->successor = text_argument(name, argument, 1, 127);
			break;
		case OPT_HOLD:
			options->hold = duration_argument(name, argument, 0, DAY);
			if (options->hold > 0 && options->hold < MS)
				die(EXIT_USAGE, "--%s %s is shorter than a millisecond, and not 0s", name, argument);
			break;
	}
}

/* Would the lease live from one heartbeat to the next but one? */
static void
check_run(Options *options)
{
	if (options->jitter > options->renew)
		die(EXIT_USAGE, "--jitter %s is longer than --renew %s",
			duration_text(options->jitter), duration_text(options->renew));
	if (options->lease < 2 * options->renew + options->jitter)
		die(EXIT_USAGE, "--lease %s is shorter than twice --renew %s plus --jitter %s: one lost heartbeat would end the term",
			duration_text(options->lease), duration_text(options->renew),
			duration_text(options->jitter));
	/* nine tenths are left of the lease of one who has waited for it */
	if (options->kill_after > options->lease / 10 * 9 - options->renew - options->jitter)
		die(EXIT_USAGE, "--kill-after %s leaves no time for a heartbeat in a --lease of %s",
			duration_text(options->kill_after), duration_text(options->lease));
	if (options->health == NULL &&
		(options->health_every != 0 || options->health_failures != 0 || options->sit_out >= 0))
		die(EXIT_USAGE, "--health-every, --health-failures and --sit-out need --health");
	if (options->health_every == 0)
		options->health_every = 5 * SECOND;
	if (options->health_failures == 0)
		options->health_failures = 3;
	if (options->sit_out < 0)
		options->sit_out = options->lease;
}

/*
 * The lock must be told from the command line alone, as a name that is not what
 * was meant would silently be another lock.
 */
static void
check_lock(const char *lock)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	size_t		n_digits = strspn(lock, "0123456789");
	bool		minus = lock[0] == '-';

	if (minus)
		n_digits = strspn(lock + 1, "0123456789");
	if (n_digits > 0 && lock[n_digits + minus] == '\0')
	{
		errno = 0;
		(void) strtoll(lock, NULL, 10);
		if (errno != 0)
			die(EXIT_USAGE, "lock %s is outside the range of bigint, %lld to %lld",
				lock, LLONG_MIN, LLONG_MAX);
		return;
	}
	if (strlen(lock) > 200 || strspn(lock, letters) == 0 ||
		strspn(lock, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.:/@-") != strlen(lock))
	{
		complain("lock \"%s\" is neither a number nor a name", lock);
		hint("A name begins with a letter or _ and has up to 200 ASCII letters, digits, and _ . : / @ -.");
		exit(EXIT_USAGE);
	}
}

/* ---------------------------------------------------------------------
 * main
 * ---------------------------------------------------------------------
 */

int
main(int argc, char **argv)
{
	const struct Command *command = NULL;
	struct option long_options[N_OPTIONS + 1] = {0};
	const struct Option *taken[N_OPTIONS];
	char		letters[2 * N_OPTIONS + 3] = "+?";	/* stop at the command's
													 * first word */
	size_t		n_long = 0;
	Target		target = {0};
	Options		options = {
		.lease = 10 * SECOND,.renew = 3 * SECOND,.jitter = 2 * SECOND,
		.kill_after = SECOND,.max_term = NEVER,.wait = NEVER,.sit_out = -1,
		.limit = 20
	};
	int			c;

	open_standard_files();
	if (argc > 1 && argv[1][0] != '-')
	{
		for (size_t i = 0; i < N_COMMANDS; i++)
		{
			if (strcmp(argv[1], commands[i].name) == 0)
				command = &commands[i];
		}
		if (command == NULL)
		{
			complain("unrecognized command \"%s\"", argv[1]);
			try_help(NULL);
		}
		argv++;
		argc--;
	}

	/* only the options of this command, so that getopt complains of others */
	for (size_t i = 0; i < N_OPTIONS; i++)
	{
		const struct Option *option = &options_table[i];

		if (command != NULL ? (option->commands & command->bit) == 0 : option->commands != ALL)
			continue;
		taken[n_long] = option;
		long_options[n_long].name = option->name;
		long_options[n_long].has_arg = option->argument != NULL ? required_argument : no_argument;
		long_options[n_long++].val = option->key;
		if (option->key < 256)
			sprintf(letters + strlen(letters), "%c%s", option->key,
					option->argument != NULL ? ":" : "");
	}

	argv[0] = PROGNAME;			/* in its complaints */
	while ((c = getopt_long(argc, argv, letters, long_options, NULL)) != -1)
	{
		if (c == '?' && strcmp(argv[optind - 1], "-?") != 0)
			try_help(command);	/* getopt has complained */
		if (c == '?' || c == OPT_HELP)
		{
			usage(command);
			flush_output();
			return 0;
		}
		if (c == 'V')
		{
			printf("%s (leader_election) %s\n", PROGNAME, VERSION);
			flush_output();
			return 0;
		}
		for (size_t i = 0; i < n_long; i++)
		{
			if (taken[i]->key == c)
				take_option(taken[i], optarg, &target, &options);
		}
	}

	if (command == NULL)
	{
		complain(optind < argc ? "the command comes first, before options" : "no command was given");
		try_help(NULL);
	}
	if (target.lock == NULL && command->needs_lock)
	{
		complain("no lock was given: --lock=LOCK");
		try_help(command);
	}
	if (target.lock != NULL)
		check_lock(target.lock);
	if (command->takes_command && optind >= argc)
	{
		complain("no command to run was given");
		try_help(command);
	}
	if (!command->takes_command && optind < argc)
	{
		complain("too many command-line arguments (first is \"%s\")", argv[optind]);
		try_help(command);
	}
	if (command->bit == RUN)
		check_run(&options);
	if ((command->bit & (TRANSFER | RELEASE)) != 0 &&
		(options.instance == NULL || options.token == NULL))
	{
		complain("%s needs --instance and --token of the term that you hold", command->name);
		hint("To end another's term use \"%s resign\" or \"%s revoke\".", PROGNAME, PROGNAME);
		exit(EXIT_USAGE);
	}
	options.argv = argv + optind;
	return command->function(&target, &options);
}
