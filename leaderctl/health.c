/*-------------------------------------------------------------------------
 *
 * health.c
 *	  Does a leader work?
 *
 * A shell command, run now and then while ours runs, with its environment and in
 * a keeper of its own.  It fails by its status, and by taking longer than the
 * time from one check to the next.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "leaderctl.h"

/* A command has been started. */
void
health_begin(Health *health, const Options *options, char *const *environment)
{
	health->options = options;
	health->environment = environment;
	health->failures = 0;
	health->next_at = options->health != NULL ?
		clock_now() + options->health_every : NEVER;
}

bool
health_is_running(const Health *health)
{
	return health->check.pid != 0;
}

/* A check is over when its time is, and when the lease is. */
static Time
end_of_check(const Health *health, Time deadline)
{
	Time		end = health->started + health->options->health_every;

	return end < deadline ? end : deadline;
}

static void
start_check(Health *health, Time deadline)
{
	char	   *const argv[] = {"sh", "-c", (char *) health->options->health, NULL};

	health->started = clock_now();
	health->next_at = health->started + health->options->health_every;
	if (keeper_start(&health->check, argv, health->environment, false,
					 end_of_check(health, deadline), 0))
		return;
	complain("could not start a process: %s", strerror(errno));
	health->failures++;			/* who cannot be asked is not well */
}

/*
 * Start a check if it is time, look how the last one has ended.  True: too many
 * have failed, one after the other.  When the command does not run, or is being
 * ended, the check is ended as well.
 */
bool
health_turn(Health *health, bool leads, Time deadline)
{
	int			status;

	if (!leads)
		health->next_at = NEVER;
	if (health_is_running(health))
	{
		if (!leads)
			keeper_end(&health->check);
		else
			keeper_prolong(&health->check, end_of_check(health, deadline));
		if (!keeper_is_gone(&health->check, &status) || !leads)
			return false;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		{
			health->failures = 0;
			return false;
		}
		health->failures++;
		say("the health check has failed, %d of %d: %s %d", health->failures,
			health->options->health_failures,
			WIFEXITED(status) ? "status" : "ended by signal",
			WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		return health->failures >= health->options->health_failures;
	}
	if (leads && health->options->health != NULL && clock_now() >= health->next_at)
	{
		start_check(health, deadline);
		return health->failures >= health->options->health_failures;
	}
	return false;
}

/* When to have a turn even if nothing has happened */
Time
health_wakes_at(const Health *health)
{
	if (health_is_running(health))
		return keeper_wakes_at(&health->check);
	return health->next_at > 0 ? health->next_at : NEVER;
}
