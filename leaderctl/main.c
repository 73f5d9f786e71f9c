/*-------------------------------------------------------------------------
 *
 * main.c
 *	  The command line of leaderctl.
 *
 *-------------------------------------------------------------------------
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaderctl.h"

#define DAY (86400 * SECOND)

static void
usage(void)
{
	printf("%s leads, and runs a command while it does, by locks of leader_election.\n\n"
		   "Usage:\n"
		   "  %s run --lock LOCK [OPTION]... -- COMMAND [ARGUMENT]...\n\n"
		   "LOCK is a number, or a name.  A duration is a number with its unit: 500ms, 10s,\n"
		   "5min, 23h, 1d.\n\n"
		   "Options of run:\n"
		   "  -l, --lock=LOCK             the lock to lead\n"
		   "      --instance=NAME         what our name begins with (the host's name)\n"
		   "      --lease=DURATION        length of the lease (10s)\n"
		   "      --renew=DURATION        time between heartbeats (3s)\n"
		   "      --jitter=DURATION       random deviation of that (2s)\n"
		   "      --kill-after=DURATION   from SIGTERM for the command to SIGKILL (1s)\n"
		   "      --priority=N            0 to 9, of several that wait the largest leads (0)\n"
		   "      --max-term=DURATION     hand over after so long\n"
		   "      --wait=DURATION         give up if not elected by then (for ever)\n"
		   "      --once                  exit with the command's status when it has ended\n"
		   "      --at-most-every=DURATION\n"
		   "                              nobody leads again before the term is that old\n\n"
		   "Connection options:\n"
		   "  -h, --host=HOSTNAME         database server host or socket directory\n"
		   "  -p, --port=PORT             database server port\n"
		   "  -U, --username=USERNAME     user name to connect as\n"
		   "  -d, --dbname=DBNAME         database name, or connection string\n\n"
		   "Other options:\n"
		   "  -q, --quiet                 say nothing but errors\n"
		   "  -V, --version               output version information, then exit\n"
		   "  -?, --help                  show this help, then exit\n",
		   PROGNAME, PROGNAME);
}

static void
try_help(void)
{
	hint("Try \"%s --help\" for more information.", PROGNAME);
	exit(EXIT_USAGE);
}

static Time
duration_option(const char *name, const char *text, Time min, Time max)
{
	Time		duration;

	if (!duration_parse(text, &duration))
		die(EXIT_USAGE, "%s \"%s\" is not a duration such as 500ms, 10s or 23h", name, text);
	if (duration < min || duration > max)
		die(EXIT_USAGE, "%s %s is outside the range %s to %s", name, text,
			duration_text(min), duration_text(max));
	return duration;
}

/* Would the lease live from one heartbeat to the next but one? */
static void
check_run_options(const RunOptions *options)
{
	if (options->jitter > options->renew)
		die(EXIT_USAGE, "--jitter %s is longer than --renew %s",
			duration_text(options->jitter), duration_text(options->renew));
	if (options->lease < 2 * options->renew + options->jitter)
		die(EXIT_USAGE, "--lease %s is shorter than twice --renew %s plus --jitter %s: one lost heartbeat would end the term",
			duration_text(options->lease), duration_text(options->renew),
			duration_text(options->jitter));
	if (options->kill_after > options->lease - options->renew - options->jitter)
		die(EXIT_USAGE, "--kill-after %s leaves no time for a heartbeat in a --lease of %s",
			duration_text(options->kill_after), duration_text(options->lease));
	if (options->argv[0] == NULL)
	{
		complain("no command was given");
		try_help();
	}
}

enum
{
	OPT_INSTANCE = 256, OPT_LEASE, OPT_RENEW, OPT_JITTER, OPT_KILL_AFTER,
	OPT_PRIORITY, OPT_MAX_TERM, OPT_WAIT, OPT_ONCE, OPT_AT_MOST_EVERY
};

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"lock", required_argument, NULL, 'l'},
		{"host", required_argument, NULL, 'h'},
		{"port", required_argument, NULL, 'p'},
		{"username", required_argument, NULL, 'U'},
		{"dbname", required_argument, NULL, 'd'},
		{"quiet", no_argument, NULL, 'q'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, '?'},
		{"instance", required_argument, NULL, OPT_INSTANCE},
		{"lease", required_argument, NULL, OPT_LEASE},
		{"renew", required_argument, NULL, OPT_RENEW},
		{"jitter", required_argument, NULL, OPT_JITTER},
		{"kill-after", required_argument, NULL, OPT_KILL_AFTER},
		{"priority", required_argument, NULL, OPT_PRIORITY},
		{"max-term", required_argument, NULL, OPT_MAX_TERM},
		{"wait", required_argument, NULL, OPT_WAIT},
		{"once", no_argument, NULL, OPT_ONCE},
		{"at-most-every", required_argument, NULL, OPT_AT_MOST_EVERY},
		{NULL, 0, NULL, 0}
	};
	Target		target = {0};
	RunOptions	options = {
		.lease = 10 * SECOND,.renew = 3 * SECOND,.jitter = 2 * SECOND,
		.kill_after = SECOND,.max_term = NEVER,.wait = NEVER
	};
	const char *command = NULL;
	int			c;

	if (argc > 1 && argv[1][0] != '-')
	{
		command = argv[1];
		argv++;
		argc--;
	}
	/* + : what follows the first word that is no option is the command's */
	while ((c = getopt_long(argc, argv, "+l:h:p:U:d:qV?", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'l':
				target.lock = optarg;
				break;
			case 'h':
				target.host = optarg;
				break;
			case 'p':
				target.port = optarg;
				break;
			case 'U':
				target.user = optarg;
				break;
			case 'd':
				target.dbname = optarg;
				break;
			case 'q':
				quiet = true;
				break;
			case 'V':
				printf("%s (leader_election) %s\n", PROGNAME, VERSION);
				return 0;
			case '?':
				if (strcmp(argv[optind - 1], "--help") == 0 ||
					strcmp(argv[optind - 1], "-?") == 0)
				{
					usage();
					return 0;
				}
				try_help();
				break;
			case OPT_INSTANCE:
				if (strlen(optarg) > 100 || optarg[0] == '\0')
					die(EXIT_USAGE, "--instance \"%s\" has %zu bytes, which is outside the range 1 to 100",
						optarg, strlen(optarg));
				options.instance = optarg;
				break;
			case OPT_LEASE:
				options.lease = duration_option("--lease", optarg, 100 * MS, DAY);
				break;
			case OPT_RENEW:
				options.renew = duration_option("--renew", optarg, 10 * MS, DAY);
				break;
			case OPT_JITTER:
				options.jitter = duration_option("--jitter", optarg, 0, DAY);
				break;
			case OPT_KILL_AFTER:
				options.kill_after = duration_option("--kill-after", optarg, 0, DAY);
				break;
			case OPT_PRIORITY:
				if (strlen(optarg) != 1 || optarg[0] < '0' || optarg[0] > '9')
					die(EXIT_USAGE, "--priority \"%s\" is outside the range 0 to 9", optarg);
				options.priority = optarg[0] - '0';
				break;
			case OPT_MAX_TERM:
				options.max_term = duration_option("--max-term", optarg, SECOND, 365 * DAY);
				break;
			case OPT_WAIT:
				options.wait = duration_option("--wait", optarg, 0, 365 * DAY);
				break;
			case OPT_ONCE:
				options.once = true;
				break;
			case OPT_AT_MOST_EVERY:
				options.at_most_every = duration_option("--at-most-every", optarg, MS, DAY);
				break;
		}
	}

	if (command == NULL)
	{
		complain("no command was given");
		try_help();
	}
	if (strcmp(command, "run") != 0)
	{
		complain("unrecognized command \"%s\"", command);
		try_help();
	}
	if (target.lock == NULL)
		die(EXIT_USAGE, "no lock was given: --lock=LOCK");
	options.argv = argv + optind;
	check_run_options(&options);
	return run_command(&target, &options);
}
