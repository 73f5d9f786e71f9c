/*-------------------------------------------------------------------------
 *
 * keeper.c
 *	  The process that keeps a command, and ends it in time.
 *
 * The command must be gone before the deadline whatever becomes of us: so
 * between it and us stands a process that does nothing else.  It sees our death
 * by a pipe, the deadline in memory that we share, and all that the command has
 * started, also in sessions of its own, because orphans become its children: it
 * has none left, and exits, only when all are gone.
 *
 * If it dies itself, the command gets SIGKILL from the kernel, and what that has
 * started becomes our child: keeper_is_gone() ends it.
 *
 * Floor: parts.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* pipe2(), execvpe() */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leaderctl.h"

/* what a process may need to be scheduled, and to be gone after SIGKILL */
#define MARGIN (50 * MS)

/* between two rounds of SIGKILL */
#define AGAIN (2 * MS)

struct KeeperShared
{
	_Atomic(int64_t) deadline;
	_Atomic int command;		/* its pid, and its process group's; 0: none */
	_Atomic int status;			/* of the command, as by waitpid() */
	_Atomic bool is_over;		/* and nothing that it has started is left */
	_Atomic bool not_begun;		/* there was no command to be run */
	Time		kill_after;
};

/* ---------------------------------------------------------------------
 * Ending processes
 * ---------------------------------------------------------------------
 */

/* The parent of a process, as /proc tells; 0: it is gone. */
static pid_t
parent_of(const char *pid)
{
	char		path[64];
	char		stat[512];
	char	   *end;
	FILE	   *file;
	size_t		length;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	file = fopen(path, "re");
	if (file == NULL)
		return 0;
	length = fread(stat, 1, sizeof(stat) - 1, file);
	fclose(file);
	stat[length] = '\0';
	end = strrchr(stat, ')');	/* a name may have spaces and parentheses */
	return end == NULL ? 0 : atoi(end + 3 + strcspn(end + 3, " "));
}

static bool is_keeper(pid_t pid);

/* False: this is no child of ours but a keeper. */
static bool
signal_child(pid_t pid, int signal, pid_t not_in)
{
	if (is_keeper(pid))
		return false;
	if (not_in == 0 || getpgid(pid) != not_in)
		kill(pid, signal);
	return true;
}

/*
 * Send a signal to each child of ours that is no keeper, but for those in that
 * process group; how many there are.  Their own children become ours when they
 * are gone.
 *
 * The kernel's list of our children costs little, and may be short when one of
 * them goes meanwhile, so none is believed only after a look at all processes.
 */
static int
signal_children(int signal, pid_t not_in)
{
	int			count = 0;
	pid_t		me = getpid();
	char		path[64];
	FILE	   *list;
	DIR		   *proc;
	struct dirent *entry;
	int			pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int) me);
	list = fopen(path, "re");
	while (list != NULL && fscanf(list, "%d", &pid) == 1)
		count += signal_child(pid, signal, not_in);
	if (list != NULL)
		fclose(list);
	if (count > 0)
		return count;

	proc = opendir("/proc");
	while (proc != NULL && (entry = readdir(proc)) != NULL)
	{
		pid = atoi(entry->d_name);
		if (pid > 0 && parent_of(entry->d_name) == me)
			count += signal_child(pid, signal, not_in);
	}
	if (proc != NULL)
		closedir(proc);
	return count;
}

/*
 * Send a signal to the command and what it has started, once to each, as a
 * second SIGTERM is an order to some.  The number of its process group belongs
 * to it as long as it has not been reaped.
 */
static void
signal_all(pid_t command, int signal)
{
	if (command > 0)
		kill(-command, signal);
	signal_children(signal, command);
}

/* ---------------------------------------------------------------------
 * The keeper
 * ---------------------------------------------------------------------
 */

static void
start_command(KeeperShared *shared, char *const *argv, char *const *environment,
			  bool has_input)
{
	pid_t		keeper = getpid();
	pid_t		pid = fork();

	if (pid != 0)
	{
		if (pid > 0)
			setpgid(pid, pid);
		else
		{
			shared->status = 126 << 8;
			shared->not_begun = true;
		}
		shared->command = pid > 0 ? pid : 0;
		return;
	}

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper || clock_now() >= shared->deadline - MARGIN)
	{
		shared->not_begun = true;
		_exit(126);
	}
	wake_reset();
	if (!has_input)
	{
		close(STDIN_FILENO);
		open("/dev/null", O_RDONLY);	/* the lowest number that is free */
	}
	execvpe(argv[0], argv, environment);
	shared->not_begun = true;
	fprintf(stderr, "%s: error: could not run \"%s\": %m\n", PROGNAME, argv[0]);
	_exit(errno == ENOENT ? 127 : 126);
}

/*
 * Reap whoever has ended; are there any left?  The number of the command is taken
 * back before it can be somebody else's: leaderctl sends signals to it.
 */
static bool
reap(KeeperShared *shared)
{
	for (;;)
	{
		siginfo_t	ended = {0};
		bool		is_command;
		int			status;

		if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0)
			return errno != ECHILD;
		if (ended.si_pid == 0)
			return true;
		is_command = (ended.si_pid == shared->command);
		if (is_command)
			shared->command = 0;
		waitpid(ended.si_pid, &status, 0);
		if (is_command)
			shared->status = status;
	}
}

static void
set_timer(int timer, Time at)
{
	struct itimerspec when = {0};

	at = at > 1 ? at : 1;		/* 0 would disarm it */
	when.it_value.tv_sec = at / SECOND;
	when.it_value.tv_nsec = at % SECOND;
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/*
 * Close what is leaderctl's, but for one: the server is to see its connection
 * end with it, and another keeper its pipe.  What leaderctl was given by its own
 * parent goes on to the command.
 */
static void
close_inherited(int but)
{
	DIR		   *fds = opendir("/proc/self/fd");
	struct dirent *entry;

	while (fds != NULL && (entry = readdir(fds)) != NULL)
	{
		int			fd = atoi(entry->d_name);
		int			flags = entry->d_name[0] == '.' ? -1 : fcntl(fd, F_GETFD);

		if (flags >= 0 && (flags & FD_CLOEXEC) != 0 && fd != but && fd != dirfd(fds))
			close(fd);
	}
	if (fds != NULL)
		closedir(fds);
}

static void
keep(KeeperShared *shared, char *const *argv, char *const *environment,
	 bool has_input, int fd)
{
	Time		kill_at = NEVER;	/* never yet: it is not being ended */
	sigset_t	all;
	struct pollfd fds[3] = {{.fd = fd,.events = POLLIN}};

	close_inherited(fd);

	/* nobody's signal but SIGKILL and SIGSTOP does anything to us */
	setpgid(0, 0);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&all);
	sigaddset(&all, SIGCHLD);
	fds[1].fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	fds[2].fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	fds[1].events = fds[2].events = POLLIN;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGCONT);	/* stopped, we would not notice */
	prctl(PR_SET_NAME, "leaderctl-keep");

	if (fds[1].fd >= 0 && fds[2].fd >= 0)
		start_command(shared, argv, environment, has_input);
	else
	{
		shared->status = 126 << 8;
		shared->not_begun = true;
	}

	while (reap(shared))
	{
		Time		now = clock_now();
		Time		latest = shared->deadline - MARGIN;
		uint64_t	count;
		struct signalfd_siginfo info;

		if (kill_at == NEVER &&
			(now >= latest - shared->kill_after || shared->command == 0 ||
			 fds[0].revents != 0))
		{
			kill_at = now + shared->kill_after;
			if (now < latest)	/* else we were frozen: there is no time */
			{
				signal_all(shared->command, SIGTERM);
				signal_all(shared->command, SIGCONT);	/* to notice it */
			}
			fds[0].fd = -1;
		}
		if (kill_at != NEVER && kill_at > latest)
			kill_at = latest;	/* the last renewal may have been the last */
		if (now >= kill_at)
			signal_all(shared->command, SIGKILL);
		set_timer(fds[2].fd, now >= kill_at ? now + AGAIN :
				  kill_at != NEVER ? kill_at : latest - shared->kill_after);

		poll(fds, 3, -1);
		while (read(fds[1].fd, &info, sizeof(info)) > 0)
			continue;
		while (read(fds[2].fd, &count, sizeof(count)) > 0)
			continue;
	}
	shared->is_over = true;
	_exit(0);
}

/* ---------------------------------------------------------------------
 * Our side
 * ---------------------------------------------------------------------
 */

static Keeper *keepers[2];		/* those that are there */

#define N_KEEPERS (sizeof(keepers) / sizeof(keepers[0]))

static bool
is_keeper(pid_t pid)
{
	for (size_t i = 0; i < N_KEEPERS; i++)
	{
		if (keepers[i] != NULL && keepers[i]->pid == pid)
			return true;
	}
	return false;
}

/* At start: if a keeper dies, what it has kept becomes ours. */
void
keeper_init(void)
{
	if (access("/proc/self/stat", R_OK) != 0)
		die(EXIT_USAGE, "could not read /proc, which is needed to end what a command has started");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/*
 * Run a command, with our standard input or none, until the deadline at the
 * latest; kill_after is how long before its end it is asked to end.  False, with
 * errno: nothing was started.
 */
bool
keeper_start(Keeper *keeper, char *const *argv, char *const *environment,
			 bool has_input, Time deadline, Time kill_after)
{
	int			ends[2];
	size_t		place = 0;

	while (place < N_KEEPERS - 1 && keepers[place] != NULL)
		place++;
	keeper->shared = mmap(NULL, sizeof(KeeperShared), PROT_READ | PROT_WRITE,
						  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (keeper->shared == MAP_FAILED)
		return false;
	keeper->shared->deadline = deadline;
	keeper->shared->kill_after = kill_after;
	keeper->end_by = NEVER;
	keeper->is_killed = false;
	if (pipe2(ends, O_CLOEXEC) == 0)
	{
		fflush(NULL);
		keeper->pid = fork();
		if (keeper->pid == 0)
		{
			memset(keepers, 0, sizeof(keepers));
			keep(keeper->shared, argv, environment, has_input, ends[0]);
		}
		close(ends[0]);
		keeper->fd = ends[1];
		if (keeper->pid > 0)
		{
			keepers[place] = keeper;
			return true;
		}
		close(keeper->fd);
	}
	keeper->pid = 0;
	munmap(keeper->shared, sizeof(KeeperShared));
	return false;
}

/* The lease has been renewed; the keeper sees it when it wakes. */
void
keeper_prolong(Keeper *keeper, Time deadline)
{
	keeper->shared->deadline = deadline;
}

/* Ask the command to end, and end it after kill_after. */
void
keeper_end(Keeper *keeper)
{
	if (keeper->fd < 0)
		return;
	close(keeper->fd);
	keeper->fd = -1;
	keeper->end_by = clock_now() + keeper->shared->kill_after + MARGIN;
}

/* Reap those who have ended; a keeper that has is told by pid -1. */
static void
reap_ours(void)
{
	pid_t		pid;
	int			status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
	{
		for (size_t i = 0; i < N_KEEPERS; i++)
		{
			if (keepers[i] != NULL && keepers[i]->pid == pid)
				keepers[i]->pid = -1;
		}
	}
}

/*
 * Is the command gone, and all that it has started?  Then *status is that of
 * the command, as by waitpid().  Until then call this at each SIGCHLD, and at
 * keeper_wakes_at(): if the keeper is dead, or sleeps when the time has come
 * (somebody has stopped it), its work is done here.
 */
bool
keeper_is_gone(Keeper *keeper, int *status)
{
	KeeperShared *shared = keeper->shared;

	reap_ours();
	if (!shared->is_over)
	{
		if (keeper->pid > 0 && !keeper->is_killed && clock_now() < keeper_wakes_at(keeper))
			return false;
		if (keeper->pid > 0)
		{
			pid_t		command = shared->command;

			/* its end takes the command with it, but this is sooner */
			if (command > 0)
				kill(-command, SIGKILL);
			kill(keeper->pid, SIGKILL);
			keeper->is_killed = true;
		}
		if (signal_children(SIGKILL, 0) > 0 || keeper->pid > 0)
			return false;
	}
	else if (keeper->pid > 0)
		return false;			/* on its way out */

	*status = shared->is_over ? shared->status : SIGKILL;
	keeper->has_begun = !shared->not_begun;
	for (size_t i = 0; i < N_KEEPERS; i++)
	{
		if (keepers[i] == keeper)
			keepers[i] = NULL;
	}
	keeper_end(keeper);
	munmap(shared, sizeof(KeeperShared));
	keeper->pid = 0;
	return true;
}

/* When to have a look even if nothing has happened */
Time
keeper_wakes_at(const Keeper *keeper)
{
	Time		latest = keeper->shared->deadline - MARGIN / 2;

	if (keeper->pid < 0 || keeper->is_killed)
		return clock_now() + AGAIN;
	return keeper->end_by < latest ? keeper->end_by : latest;
}
