/*-------------------------------------------------------------------------
 *
 * run.c
 *	  leaderctl run: the term, from waiting for it to its release.
 *
 * The client's rule (README, "How a client uses it"): the deadline is the time
 * before sending plus valid_for_ms; an answer after the deadline is void; a
 * token whose release or transfer has been sent is dead.  The keeper has ended
 * the command by the deadline, so a term is over for us when the command is
 * gone, and never before.
 *
 * One connection, one question at a time: it waits in le_campaign() only while
 * there is no command.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* pipe2() */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leaderctl.h"

/* one le_campaign() waits for so long, then asks anew */
#define WAIT_MS 30000

/* who is told to stop while it waits has an answer by then, or goes */
#define STOP_PATIENCE (2 * SECOND)

/* a command that has ended is not begun again sooner */
#define AGAIN_AFTER SECOND

typedef enum Question
{
	ASK_NOTHING, ASK_CAMPAIGN, ASK_BEAT, ASK_TRANSFER, ASK_RELEASE
} Question;

typedef struct Run
{
	const RunOptions *options;
	Target	   *target;
	Session		session;
	Question	asked;			/* under way */
	char		instance[128];
	char		lock[24];

	char		token[24];		/* of our term; "": there is none */
	Time		deadline;		/* we may act until then */
	Time		began;
	Time		next_beat;
	const char *ending;			/* why the command is being ended; NULL: it is
								 * not */
	Keeper		keeper;
	int			status;			/* of the last command, as by waitpid() */
	bool		has_run;
	bool		leads;			/* as far as the server has said */
	bool		is_lost;		/* it has said that we do not */

	Time		not_before;		/* do not ask for the lead until then */
	Time		gives_up_at;	/* NEVER, or do not ask for it after then */
	Time		stopped_at;		/* when we were told to stop; NEVER: not yet */
	char	   *complained;		/* the last error that was shown */
} Run;

static int	wake_up[2];			/* a pipe, written by signal handlers */
static volatile sig_atomic_t told_to_stop = 0;

static void
on_signal(int signal)
{
	int			save_errno = errno;

	if (signal != SIGCHLD)
		told_to_stop = signal;
	(void) !write(wake_up[1], "", 1);
	errno = save_errno;
}

/* ---------------------------------------------------------------------
 * The term
 * ---------------------------------------------------------------------
 */

static bool
is_running(const Run *run)
{
	return run->keeper.pid != 0;
}

static void
give_up_term(Run *run)
{
	run->token[0] = '\0';
	run->deadline = 0;
}

/* What the command finds in its environment */
static void
set_environment(Run *run)
{
	PQconninfoOption *options = PQconninfo(run->session.conn);

	for (PQconninfoOption *option = options; option && option->keyword; option++)
	{
		if (option->envvar != NULL && option->val != NULL && option->val[0] != '\0' &&
			(strcmp(option->keyword, "host") == 0 || strcmp(option->keyword, "port") == 0 ||
			 strcmp(option->keyword, "user") == 0 || strcmp(option->keyword, "dbname") == 0))
			setenv(option->envvar, option->val, 1);
	}
	PQconninfoFree(options);
	unsetenv("PGOPTIONS");
	unsetenv("PGAPPNAME");
	setenv("LEADER_LOCK", run->lock, 1);
	setenv("LEADER_INSTANCE", run->instance, 1);
	setenv("LEADER_TOKEN", run->token, 1);
}

static void
begin_term(Run *run, const char *token, Time deadline)
{
	snprintf(run->token, sizeof(run->token), "%s", token);
	run->deadline = deadline;
	run->began = clock_now();
	run->gives_up_at = NEVER;	/* it was about being elected */
	run->ending = NULL;
	run->leads = true;
	run->is_lost = false;
	set_environment(run);
	say("leads lock %s, token %s", run->lock, run->token);
	if (!keeper_start(&run->keeper, run->options->argv, deadline,
					  run->options->kill_after))
		complain("could not start a process: %s", strerror(errno));
}

static void
end_command(Run *run, const char *why)
{
	if (!is_running(run) || run->ending != NULL)
		return;
	run->ending = why;
	say("ends the command: %s", why);
	keeper_end(&run->keeper);
}

static void
set_next_beat(Run *run, Time sent)
{
	const RunOptions *options = run->options;

	run->next_beat = sent + options->renew - options->jitter +
		2 * (options->jitter / 1000) * (random() % 1001);
}

/* ---------------------------------------------------------------------
 * Questions
 * ---------------------------------------------------------------------
 */

static void
ask(Run *run, Question question)
{
	const RunOptions *options = run->options;
	Time		left = run->gives_up_at - clock_now();
	char		lease[24];
	char		wait[24];
	char		priority[8];
	char		hold[24];
	char	   *sql = NULL;
	Time		at_most = 0;
	int			wait_ms = WAIT_MS;

	if (run->gives_up_at != NEVER && left / MS < wait_ms)
		wait_ms = left > 0 ? (int) (left / MS) : 0;
	snprintf(lease, sizeof(lease), "%" PRId64, options->lease / MS);
	snprintf(wait, sizeof(wait), "%d", wait_ms);
	snprintf(priority, sizeof(priority), "%d", options->priority);
	snprintf(hold, sizeof(hold), "%" PRId64, options->at_most_every / MS);

	{
		const char *values[] = {run->lock, run->instance, NULL, NULL, NULL};
		int			n_values = 3;

		values[2] = run->token;
		switch (question)
		{
			case ASK_CAMPAIGN:
				sql = format_string("SELECT elected, token, valid_for_ms, leader_id"
									" FROM %s.le_campaign($1, $2, $3, $4, NULL, $5)",
									run->target->schema);
				values[2] = lease;
				values[3] = wait;
				values[4] = priority;
				n_values = 5;
				at_most = wait_ms * MS;
				break;
			case ASK_BEAT:
				sql = format_string("SELECT leads, NULL, valid_for_ms, NULL, resign_requested"
									" FROM %s.le_keep_alive($1, $2, $3)",
									run->target->schema);
				break;
			case ASK_TRANSFER:
				sql = format_string("SELECT %s.le_transfer($1, $2, $3)",
									run->target->schema);
				break;
			case ASK_RELEASE:
				sql = format_string("SELECT %s.le_release($1, $2, $3, $4)",
									run->target->schema);
				values[3] = hold;
				n_values = 4;
				break;
			case ASK_NOTHING:
				return;
		}
		run->asked = question;
		session_ask(&run->session, at_most, sql, n_values, values);
		free(sql);
	}
}

/* Show an error once, however often it comes. */
static void
complain_once(Run *run, const char *message)
{
	if (run->complained != NULL && strcmp(run->complained, message) == 0)
		return;
	complain("%s", message);
	free(run->complained);
	run->complained = strdup(message);
}

/* The question is answered, or lost with its connection. */
static void
take_answer(Run *run)
{
	Session    *session = &run->session;
	Question	asked = run->asked;
	const char *said = session_field(session, 0);
	const char *valid = session_field(session, 2);
	bool		yes = said != NULL && said[0] == 't';
	Time		sent = session->since;

	run->asked = ASK_NOTHING;
	if (session->sqlstate[0] != '\0')
	{
		/* 57014: we have cancelled it ourselves, to stop */
		if (strcmp(session->sqlstate, "57014") != 0 || run->stopped_at == NEVER)
			complain_once(run, session->error);
		/* a server that cannot now may be another one by the next attempt */
		if (session->state != SESSION_CLOSED)
			session_drop(session);
		return;
	}
	free(run->complained);
	run->complained = NULL;

	switch (asked)
	{
		case ASK_CAMPAIGN:
			if (!yes)
				break;
			if (clock_now() >= sent + strtoll(valid, NULL, 10) * MS)
				break;			/* frozen since: over already */
			begin_term(run, session_field(session, 1),
					   sent + strtoll(valid, NULL, 10) * MS);
			set_next_beat(run, clock_now());
			break;

		case ASK_BEAT:
			if (run->token[0] == '\0' || clock_now() >= run->deadline)
				break;			/* an answer after the deadline is void */
			if (!yes)
			{
				end_command(run, "the server says that it does not lead");
				run->is_lost = true;
				break;
			}
			run->deadline = sent + strtoll(valid, NULL, 10) * MS;
			if (is_running(run))
				keeper_prolong(&run->keeper, run->deadline);
			set_next_beat(run, sent);
			if (session_field(session, 4)[0] == 't')
				end_command(run, "an operator has asked it to resign");
			break;

		case ASK_TRANSFER:
			run->leads = false;
			if (!yes)
				break;			/* nobody waits: release it */
			say("has handed lock %s over", run->lock);
			give_up_term(run);
			break;

		case ASK_RELEASE:
			if (yes)
				say("has released lock %s", run->lock);
			give_up_term(run);
			break;

		case ASK_NOTHING:
			break;
	}
}

/* What is to be asked now */
static Question
next_question(Run *run, Time now)
{
	if (run->token[0] != '\0')
	{
		if (is_running(run))
			return now >= run->next_beat && !run->is_lost ? ASK_BEAT : ASK_NOTHING;
		return run->leads && run->options->at_most_every == 0 ?
			ASK_TRANSFER : ASK_RELEASE;
	}
	if (is_running(run) || run->stopped_at != NEVER || now < run->not_before)
		return ASK_NOTHING;
	return ASK_CAMPAIGN;
}

/* ---------------------------------------------------------------------
 * The loop
 * ---------------------------------------------------------------------
 */

/* Ask the server to end the le_campaign() that we wait in, without waiting. */
static void
cancel_campaign(Run *run)
{
	PGcancel   *cancel = PQgetCancel(run->session.conn);

	if (cancel != NULL && fork() == 0)
	{
		char		error[256];

		(void) PQcancel(cancel, error, sizeof(error));
		_exit(0);
	}
	PQfreeCancel(cancel);
}

static void
look_at_command(Run *run)
{
	Time		now = clock_now();

	if (!is_running(run) || !keeper_is_gone(&run->keeper, &run->status))
		return;
	run->has_run = true;
	run->not_before = now + AGAIN_AFTER;
	if (run->token[0] != '\0' && now >= run->deadline)
		say("the lease has run out, and the command was ended before");
	else if (WIFEXITED(run->status))
		say("the command has exited with status %d", WEXITSTATUS(run->status));
	else
		say("the command was ended by signal %d", WTERMSIG(run->status));
	if (run->is_lost)
		give_up_term(run);
}

static void
look_at_signals(Run *run)
{
	char		buffer[64];

	while (read(wake_up[0], buffer, sizeof(buffer)) > 0)
		continue;
	if (told_to_stop == 0 || run->stopped_at != NEVER)
		return;
	run->stopped_at = clock_now();
	end_command(run, "told to stop");
	if (run->asked == ASK_CAMPAIGN && run->session.state == SESSION_BUSY)
		cancel_campaign(run);
}

/* Is there nothing left to do?  Then *status is ours. */
static bool
is_over(Run *run, Time now, int *status)
{
	bool		stops = run->stopped_at != NEVER ||
		(run->has_run && run->options->once);

	if (is_running(run) || run->token[0] != '\0')
		return false;
	if (run->asked == ASK_CAMPAIGN)
		return stops && now >= run->stopped_at + STOP_PATIENCE;
	if (!run->has_run && now >= run->gives_up_at)
	{
		say("not elected within %s", duration_text(run->options->wait));
		*status = EXIT_NOT_ELECTED;
		return true;
	}
	if (!stops)
		return false;
	*status = !run->options->once || !run->has_run ? 0 :
		WIFEXITED(run->status) ? WEXITSTATUS(run->status) : 128 + WTERMSIG(run->status);
	return true;
}

static Time
wakes_at(Run *run, Time now)
{
	Time		at = session_wakes_at(&run->session);

#define SOONER(when) do { Time when_ = (when); if (when_ < at) at = when_; } while (0)
	if (is_running(run))
		SOONER(keeper_wakes_at(&run->keeper));
	if (run->token[0] != '\0')
		SOONER(run->deadline);
	if (is_running(run) && !run->is_lost && run->session.state == SESSION_IDLE)
		SOONER(run->next_beat);
	if (is_running(run) && run->ending == NULL && run->options->max_term != NEVER)
		SOONER(run->began + run->options->max_term);
	if (run->token[0] == '\0' && !is_running(run) && run->not_before > now)
		SOONER(run->not_before);
	if (!run->has_run)
		SOONER(run->gives_up_at);
	if (run->stopped_at != NEVER)
		SOONER(run->stopped_at + STOP_PATIENCE);
	return at;
}

/*
 * A name of our own, whatever was given: the name is the credential, and two
 * with one name would lead at once.
 */
static void
make_instance(const char *given, char *instance, size_t size)
{
	char		host[65] = "";
	unsigned char random_bytes[6];
	char		suffix[2 * sizeof(random_bytes) + 1];

	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		strcpy(host, "host");
	if (getrandom(random_bytes, sizeof(random_bytes), 0) != sizeof(random_bytes))
		die(EXIT_FAILED, "could not get random bytes: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(random_bytes); i++)
		snprintf(suffix + 2 * i, 3, "%02x", random_bytes[i]);
	srandom(clock_now() ^ getpid());
	snprintf(instance, size, "%s:%s", given != NULL ? given : host, suffix);
}

static void
set_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal,.sa_flags = SA_RESTART};
	const int	signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD};

	if (pipe2(wake_up, O_CLOEXEC | O_NONBLOCK) != 0)
		die(EXIT_FAILED, "could not make a pipe: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
}

int
run_command(Target *target, const RunOptions *options)
{
	static const char *const functions[] = {"le_campaign", "le_keep_alive",
	"le_release", "le_transfer", NULL};
	Run			run = {.options = options,.target = target,
		.stopped_at = NEVER,.gives_up_at = NEVER,
	};
	PGconn	   *conn;
	int			status = EXIT_FAILED;

	set_signals();
	keeper_init();
	make_instance(options->instance, run.instance, sizeof(run.instance));

	/* what is wrong from the start is said before anything is started */
	while ((conn = connect_now(target, PROGNAME " run")) == NULL)
	{
		if (told_to_stop)
			return 0;
		sleep(1);
	}
	check_server(conn, target, functions);
	PQfinish(conn);
	snprintf(run.lock, sizeof(run.lock), "%" PRId64, target->lock_id);
	if (options->wait != NEVER)
		run.gives_up_at = clock_now() + options->wait;

	session_open(&run.session, target, PROGNAME " run");
	for (;;)
	{
		Time		now;
		Question	question;
		struct pollfd fds[2];

		look_at_signals(&run);
		session_turn(&run.session);
		if (run.asked != ASK_NOTHING && (run.session.state == SESSION_IDLE ||
										 run.session.state == SESSION_CLOSED))
			take_answer(&run);
		else if (run.session.state == SESSION_CLOSED && run.session.error != NULL)
			complain_once(&run, run.session.error);
		look_at_command(&run);

		now = clock_now();
		if (run.ending == NULL && is_running(&run) &&
			options->max_term != NEVER && now >= run.began + options->max_term)
			end_command(&run, "its term has been long enough");
		if (run.token[0] != '\0' && now >= run.deadline && !is_running(&run))
			give_up_term(&run);
		if (is_over(&run, now, &status))
			break;

		question = next_question(&run, now);
		if (question != ASK_NOTHING && run.asked == ASK_NOTHING &&
			run.session.state == SESSION_IDLE)
			ask(&run, question);

		fds[0].fd = wake_up[0];
		fds[0].events = POLLIN;
		fds[1].fd = session_fd(&run.session);
		fds[1].events = session_events(&run.session);
		poll(fds, 2, clock_timeout(wakes_at(&run, now)));
	}
	session_close(&run.session);
	return status;
}
