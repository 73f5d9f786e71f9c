/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Signals as something to poll for.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* pipe2() */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leaderctl.h"

const int	stop_signals[N_STOP_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

static int	ends[2] = {-1, -1}; /* of a pipe */
static volatile sig_atomic_t has_come[64];

static void
on_signal(int signal)
{
	int			save_errno = errno;

	has_come[signal] = 1;
	(void) !write(ends[1], "", 1);
	errno = save_errno;
}

/*
 * From now on this signal does nothing but to wake who polls wake_fd(); one that
 * nohup, or a shell that has started us with &, wants to be ignored stays so.
 */
void
wake_at(int signal)
{
	struct sigaction action = {.sa_handler = on_signal,.sa_flags = SA_RESTART};
	struct sigaction old;

	if (ends[0] < 0 && pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		die(EXIT_FAILED, "could not make a pipe: %s", strerror(errno));
	sigaction(signal, &action, &old);
	if (old.sa_handler == SIG_IGN && signal != SIGTERM && signal != SIGCHLD)
		sigaction(signal, &old, NULL);
}

int
wake_fd(void)
{
	return ends[0];
}

/* After poll(), and before looking at what has come */
void
wake_clear(void)
{
	char		buffer[64];

	while (read(ends[0], buffer, sizeof(buffer)) > 0)
		continue;
}

/* Has this signal come since we were asked last? */
bool
wake_has_come(int signal)
{
	bool		it_has = has_come[signal];

	has_come[signal] = 0;
	return it_has;
}

/* By all that tells us to stop */
void
wake_at_stop(void)
{
	for (int i = 0; i < N_STOP_SIGNALS; i++)
		wake_at(stop_signals[i]);
}

/* Has one of these come since we were asked last? */
bool
wake_told_to_stop(void)
{
	bool		is_told = false;

	for (int i = 0; i < N_STOP_SIGNALS; i++)
		is_told = wake_has_come(stop_signals[i]) || is_told;
	return is_told;
}

/*
 * In a child, before it becomes a command: our handlers are not the command's,
 * and would swallow what comes until then.
 */
void
wake_reset(void)
{
	struct sigaction action;
	sigset_t	none;

	for (int number = 1; number < NSIG; number++)
	{
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			signal(number, SIG_DFL);
	}
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}
