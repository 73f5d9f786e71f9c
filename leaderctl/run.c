/*-------------------------------------------------------------------------
 *
 * run.c
 *	  leaderctl run: a command runs while we lead.
 *
 * The keeper has ended the command by the deadline, so a term is over for us
 * when the command is gone, and never before: that is what the wish says to
 * term.c, which asks the server.
 *
 * Floor: commands.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "leaderctl.h"

/* who is told to stop while it waits has an answer by then, or goes */
#define STOP_PATIENCE (2 * SECOND)

/* a command that has ended is not begun again sooner */
#define AGAIN_AFTER SECOND

typedef struct Run
{
	const Options *options;
	Target	   *target;
	Term		term;
	Keeper		keeper;
	Health		health;
	char	  **environment;	/* the command's */
	const char *ending;			/* why the command is being ended; NULL: it is
								 * not */
	bool		is_ill;			/* its health is why it has ended */
	int			status;			/* of the last command, as by waitpid() */
	bool		has_run;
	Time		not_before;		/* do not ask for the lead until then */
	int			n_signals[N_STOP_SIGNALS];
	int			told_to_stop;	/* the most often by one signal */
	Time		stopped_at;		/* when that was; NEVER: not yet */
} Run;

/* ---------------------------------------------------------------------
 * The command
 * ---------------------------------------------------------------------
 */

static bool
is_running(const Run *run)
{
	return run->keeper.pid != 0;
}

/* Do not ask for the lead before that, counted from now. */
static void
stay_out(Run *run)
{
	Time		pause = run->is_ill && run->options->sit_out > AGAIN_AFTER ?
	run->options->sit_out : AGAIN_AFTER;

	run->not_before = clock_now() + pause;
}

static void
start_command(Run *run)
{
	run->ending = NULL;
	run->is_ill = false;
	run->term.gives_up_at = NEVER;	/* --wait is over */
	environment_free(run->environment);
	run->environment = environment_copy();
	connect_environment(run->term.session.conn, &run->environment);
	environment_set(&run->environment, "LEADER_LOCK", run->target->lock_id);
	environment_set(&run->environment, "LEADER_INSTANCE", run->term.instance);
	environment_set(&run->environment, "LEADER_TOKEN", run->term.token);
	say("leads lock %s, token %s", run->target->lock, run->term.token);
	if (!keeper_start(&run->keeper, run->options->argv, run->environment, true,
					  run->term.deadline, run->options->kill_after))
	{
		complain("could not start a process: %s", strerror(errno));
		stay_out(run);
		return;
	}
	health_begin(&run->health, run->options, run->environment);
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
look_at_command(Run *run)
{
	Time		now = clock_now();

	if (!is_running(run) || !keeper_is_gone(&run->keeper, &run->status))
		return;
	run->has_run = true;
	run->term.was_used = run->keeper.has_begun;
	stay_out(run);
	if (term_is_ours(&run->term) && now >= run->term.deadline)
		say("the lease has run out, and the command was ended before");
	else if (WIFEXITED(run->status))
		say("the command has exited with status %d", WEXITSTATUS(run->status));
	else
		say("the command was ended by signal %d", WTERMSIG(run->status));
	if (run->term.is_lost)
		term_forget(&run->term);
}

/* A leader that does not work does not lead. */
static void
look_at_health(Run *run)
{
	bool		leads = is_running(run) && run->ending == NULL;

	if (!health_turn(&run->health, leads, run->term.deadline))
		return;
	end_command(run, "it does not work");
	run->is_ill = true;
}

/* ---------------------------------------------------------------------
 * The loop
 * ---------------------------------------------------------------------
 */

static void
take_news(Run *run, TermNews news)
{
	switch (news)
	{
		case NEWS_ELECTED:
			if (run->stopped_at == NEVER)	/* else it is released */
				start_command(run);
			break;
		case NEWS_KEPT:
		case NEWS_RESIGN:
			if (is_running(run))
				keeper_prolong(&run->keeper, run->term.deadline);
			if (news == NEWS_RESIGN)
				end_command(run, "an operator has asked it to resign");
			break;
		case NEWS_LOST:
			end_command(run, "the server says that it does not lead");
			break;
		case NEWS_OUTRANKED:
			end_command(run, "a larger priority waits");
			break;
		case NEWS_ENDED:
			stay_out(run);
			break;
		case NEWS_FOLLOWS:
		case NEWS_NONE:
			break;
	}
}

static void
look_at_signals(Run *run)
{
	wake_clear();
	for (int i = 0; i < N_STOP_SIGNALS; i++)
	{
		/* a terminal that closes, and a supervisor, may send one each */
		run->n_signals[i] += wake_has_come(stop_signals[i]);
		if (run->n_signals[i] > run->told_to_stop)
			run->told_to_stop = run->n_signals[i];
	}
	if (run->told_to_stop == 0 || run->stopped_at != NEVER)
		return;
	run->stopped_at = clock_now();
	report_stopping();
	end_command(run, "told to stop");
	term_stop_waiting(&run->term);
}

static bool
is_done(const Run *run)
{
	return run->stopped_at != NEVER || (run->has_run && run->options->once);
}

static TermWish
what_to_wish(const Run *run, Time now)
{
	if (is_running(run))
		return WISH_KEEP;
	if (health_is_running(&run->health))
		return WISH_NOTHING;	/* it is being ended */
	if (term_is_ours(&run->term))
		return WISH_END;
	if (is_done(run) || now < run->not_before)
		return WISH_NOTHING;
	return WISH_LEAD;
}

/* When we are not elected; with --wait=0s, too, the server is asked once. */
static Time
gives_up_at(const Run *run)
{
	if (run->term.gives_up_at == NEVER || term_is_ours(&run->term))
		return NEVER;
	return run->term.gives_up_at + (run->term.was_answered ? 0 : run->term.session.patience);
}

/* Is there nothing left to do?  Then *status is ours. */
static bool
is_over(const Run *run, Time now, int *status)
{
	if (run->told_to_stop > 1 && !is_running(run) && term_is_ours(&run->term))
	{
		say("leaves lock %s to the end of its lease", run->target->lock);
		*status = EXIT_FAILED;
		return true;
	}
	if (is_running(run) || term_is_ours(&run->term))
		return false;
	if (run->term.asked == ASK_CAMPAIGN &&
		(run->stopped_at == NEVER || now < run->stopped_at + STOP_PATIENCE))
		return false;
	if (run->stopped_at == NEVER && now >= gives_up_at(run))
	{
		say("not elected within %s", duration_text(run->options->wait));
		*status = EXIT_NOT_LED;
		return true;
	}
	if (!is_done(run))
		return false;
	*status = !run->options->once ? 0 : !run->has_run ? EXIT_NOT_LED :
		WIFEXITED(run->status) ? WEXITSTATUS(run->status) : 128 + WTERMSIG(run->status);
	return true;
}

/* When to have a look even if nothing has happened */
static Time
wakes_at(const Run *run, TermWish wish, Time now)
{
	Time		times[] = {
		term_wakes_at(&run->term, wish),
		health_wakes_at(&run->health),
		is_running(run) ? keeper_wakes_at(&run->keeper) : NEVER,
		term_is_ours(&run->term) ? run->term.deadline : NEVER,
		is_running(run) && run->ending == NULL &&
		run->options->max_term != NEVER ? run->term.began + run->options->max_term : NEVER,
		run->not_before > now ? run->not_before : NEVER,
		run->term.asked == ASK_CAMPAIGN ? NEVER : gives_up_at(run),
		run->stopped_at != NEVER && run->term.asked == ASK_CAMPAIGN ?
		run->stopped_at + STOP_PATIENCE : NEVER,
	};
	Time		at = NEVER;

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
	{
		if (times[i] < at)
			at = times[i];
	}
	return at;
}

static void
turn(Run *run)
{
	Time		now;

	look_at_signals(run);
	take_news(run, term_turn(&run->term));
	look_at_command(run);

	now = clock_now();
	look_at_health(run);
	if (run->options->max_term != NEVER && is_running(run) &&
		now >= run->term.began + run->options->max_term)
		end_command(run, "its term has been long enough");
	if (term_is_ours(&run->term) && now >= run->term.deadline && !is_running(run))
		term_forget(&run->term);
	report_term(&run->term, is_running(run));
}

/* Wait for a server that has all that is needed. */
static bool
wait_for_server(Run *run, Time gives_up_at)
{
	static const char *const needed[] = {"le_campaign", "le_keep_alive",
		"le_release", "le_transfer", NULL
	};
	static const char *const needed_to_yield[] = {"le_campaign", "le_keep_alive",
	"le_release", "le_transfer", "leader_waiting", "le_waiters", NULL};
	const char *const *all_needed = run->options->yield ? needed_to_yield : needed;
	char	   *said = NULL;
	char	   *error;

	while (!find_server(run->target, PROGNAME " run", all_needed, &error))
	{
		struct pollfd wake = {.fd = wake_fd(),.events = POLLIN};

		complain_anew(error, &said);
		poll(&wake, 1, clock_now() >= gives_up_at ? 0 : SECOND / MS);
		look_at_signals(run);
		if (run->told_to_stop > 0 || clock_now() >= gives_up_at)
			return false;
	}
	free(said);
	return true;
}

int
run_command(Target *target, const Options *options)
{
	Run			run = {.options = options,.target = target,.stopped_at = NEVER};
	Time		gives_up_at = options->wait == NEVER ? NEVER : clock_now() + options->wait;
	int			status = 0;

	wake_at_stop();
	wake_at(SIGCHLD);
	signal(SIGPIPE, SIG_IGN);	/* who reads our messages may go */
	keeper_init();
	report_init(options->status_file);
	if (!wait_for_server(&run, gives_up_at))
		return run.told_to_stop > 0 && !options->once ? 0 : EXIT_NOT_LED;
	term_open(&run.term, target, options);
	run.term.gives_up_at = gives_up_at;
	run.term.is_watched = report_has_readers();
	for (;;)
	{
		Time		now;
		TermWish	wish;
		struct pollfd fds[2];

		turn(&run);
		now = clock_now();
		if (is_over(&run, now, &status))
			break;
		wish = what_to_wish(&run, now);
		term_pursue(&run.term, wish);

		fds[0].fd = wake_fd();
		fds[0].events = POLLIN;
		fds[1].fd = session_fd(&run.term.session);
		fds[1].events = session_events(&run.term.session);
		poll(fds, 2, clock_timeout(wakes_at(&run, wish, now)));
	}
	term_close(&run.term);
	report_end();
	return status;
}
