/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  leaderctl watch: a command at each change of leader.
 *
 * A change is another token than that which the last command was told.  What
 * changes while a command runs is told when it has ended, and then only the
 * latest.  Nothing is run on what was heard over a connection that is lost: who
 * cannot be asked may have been replaced.
 *
 * Floor: commands.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* execvpe() */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leaderctl.h"

/* an attempt to connect, or an answer, takes no longer */
#define PATIENCE (5 * SECOND)

/* one le_observe() takes no longer, or a dead server would not be noticed */
#define OBSERVE_MAX (10 * SECOND)

/* after an error */
#define AGAIN_AFTER SECOND

/* from SIGTERM for the command to SIGKILL, when we are told to stop */
#define KILL_AFTER (5 * SECOND)

typedef struct Watch
{
	const Target *target;
	const Options *options;
	Session		session;
	bool		asked;			/* le_observe() is under way */
	Time		not_before;		/* after an error: do not ask until then */

	bool		is_known;		/* by an answer on this connection: */
	char		token[24];		/* "": nobody leads */
	char	   *leader;
	char	   *info;

	bool		has_told;		/* a command, of this token: */
	char		told[24];
	pid_t		command;		/* its process, and its group's number; 0:
								 * none runs */

	bool		is_stopping;
	Time		kill_at;
} Watch;

/* ---------------------------------------------------------------------
 * The command
 * ---------------------------------------------------------------------
 */

static void
run_in_child(const Watch *watch, pid_t parent)
{
	char	  **environment;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	wake_reset();
	if (getppid() != parent)
		_exit(126);
	environment = environment_copy();
	connect_environment(watch->session.conn, &environment);
	environment_set(&environment, "LEADER_LOCK", watch->target->lock_id);
	environment_set(&environment, "LEADER_ID", watch->leader);
	environment_set(&environment, "LEADER_TOKEN", watch->token);
	environment_set(&environment, "LEADER_INFO", watch->info);
	execvpe(watch->options->argv[0], watch->options->argv, environment);
	complain("could not run \"%s\": %s", watch->options->argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static void
start_command(Watch *watch)
{
	pid_t		parent = getpid();
	char	   *leader = text_printable(watch->leader);

	if (watch->token[0] != '\0')
		say("lock %s is led by \"%s\", token %s", watch->target->lock, leader, watch->token);
	else
		say("nobody leads lock %s", watch->target->lock);
	free(leader);

	fflush(NULL);
	watch->command = fork();
	if (watch->command == 0)
		run_in_child(watch, parent);
	if (watch->command < 0)
	{
		complain("could not start a process: %s", strerror(errno));
		watch->command = 0;
		watch->not_before = clock_now() + AGAIN_AFTER;
		return;
	}
	setpgid(watch->command, watch->command);
	watch->has_told = true;
	strcpy(watch->told, watch->token);
}

static void
look_at_command(Watch *watch)
{
	int			status;

	if (watch->command == 0 || waitpid(watch->command, &status, WNOHANG) == 0)
		return;
	watch->command = 0;
	if (watch->is_stopping)
		return;
	if (WIFSIGNALED(status))
		complain("the command was ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		complain("the command has failed with status %d", WEXITSTATUS(status));
}

static void
look_at_signals(Watch *watch)
{
	wake_clear();
	if (wake_told_to_stop() && !watch->is_stopping)
	{
		watch->is_stopping = true;
		watch->kill_at = clock_now() + KILL_AFTER;
		if (watch->command != 0)
		{
			kill(-watch->command, SIGTERM);
			kill(-watch->command, SIGCONT); /* to notice it */
		}
	}
	if (watch->is_stopping && watch->command != 0 && clock_now() >= watch->kill_at)
		kill(-watch->command, SIGKILL);
}

/* ---------------------------------------------------------------------
 * The lock
 * ---------------------------------------------------------------------
 */

static void
ask(Watch *watch)
{
	char	   *sql = format_string("SELECT leader_id, token, info FROM %s.le_observe($1, $2, $3)",
									watch->target->schema);

	/* the first answer of a connection comes at once */
	Time		at_most = watch->is_known ? target_wait(watch->target, OBSERVE_MAX) : 0;
	char	   *wait = format_string("%" PRId64, at_most / MS);
	const char *const values[] = {watch->target->lock_id,
	watch->token[0] != '\0' ? watch->token : NULL, wait};

	watch->asked = true;
	session_ask(&watch->session, at_most, sql, 3, values);
	free(sql);
	free(wait);
}

static char *
copy(const char *text)
{
	return format_string("%s", text != NULL ? text : "");
}

static void
take_answer(Watch *watch)
{
	Session    *session = &watch->session;
	const char *token = session_field(session, 1);

	watch->asked = false;
	if (session->sqlstate[0] != '\0')
	{
		session_complain(session);
		watch->is_known = false;
		watch->not_before = clock_now() + AGAIN_AFTER;
		if (strcmp(session->sqlstate, "25006") == 0)	/* a standby */
		{
			session_rotate(session);
			session_drop(session);
		}
		return;
	}
	free(session->shown);
	session->shown = NULL;
	watch->is_known = true;
	snprintf(watch->token, sizeof(watch->token), "%s", token != NULL ? token : "");
	free(watch->leader);
	free(watch->info);
	watch->leader = copy(session_field(session, 0));
	watch->info = copy(session_field(session, 2));
}

static bool
is_news(const Watch *watch)
{
	return watch->is_known && (!watch->has_told || strcmp(watch->token, watch->told) != 0);
}

static void
turn(Watch *watch)
{
	Session    *session = &watch->session;

	look_at_signals(watch);
	look_at_command(watch);
	if (watch->is_stopping)
		return;

	session_turn(session);
	if (session->state == SESSION_CLOSED || session->state == SESSION_CONNECTING)
	{
		watch->asked = false;
		watch->is_known = false;
		if (session->state == SESSION_CLOSED)
			session_complain(session);
	}
	else if (session->state == SESSION_IDLE && watch->asked)
		take_answer(watch);

	if (is_news(watch) && watch->command == 0 && clock_now() >= watch->not_before)
		start_command(watch);
	if (session->state == SESSION_IDLE && clock_now() >= watch->not_before)
		ask(watch);
}

/* When to have a turn even if nothing has happened */
static Time
wakes_at(const Watch *watch)
{
	Time		at = session_wakes_at(&watch->session);

	if (watch->is_stopping)
		return watch->kill_at > clock_now() ? watch->kill_at : clock_now() + 10 * MS;
	return watch->not_before > clock_now() && watch->not_before < at ? watch->not_before : at;
}

/* Wait for a server that has all that is needed; false: told to stop. */
static bool
wait_for_server(Target *target)
{
	static const char *const needed[] = {"le_observe", NULL};
	char	   *said = NULL;
	char	   *error;

	while (!find_server(target, PROGNAME " watch", needed, &error))
	{
		struct pollfd wake = {.fd = wake_fd(),.events = POLLIN};

		complain_anew(error, &said);
		poll(&wake, 1, SECOND / MS);
		if (wake_told_to_stop())
			return false;
	}
	free(said);
	return true;
}

int
watch_command(Target *target, const Options *options)
{
	Watch		watch = {.target = target,.options = options};

	terminal_init();
	wake_at_stop();
	wake_at(SIGCHLD);
	signal(SIGPIPE, SIG_IGN);	/* who reads our messages may go */
	if (!wait_for_server(target))
		return 0;
	srandom(clock_now() ^ getpid());
	session_open(&watch.session, target, PROGNAME " watch", PATIENCE);
	for (;;)
	{
		struct pollfd fds[2];

		turn(&watch);
		if (watch.is_stopping && watch.command == 0)
			break;
		fds[0].fd = wake_fd();
		fds[0].events = POLLIN;
		fds[1].fd = watch.is_stopping ? -1 : session_fd(&watch.session);
		fds[1].events = session_events(&watch.session);
		poll(fds, 2, clock_timeout(wakes_at(&watch)));
	}
	session_close(&watch.session);
	free(watch.leader);
	free(watch.info);
	return 0;
}
