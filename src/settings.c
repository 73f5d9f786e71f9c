/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Settings whose value the server has ignored.
 *
 * Before the library is loaded the server takes any text for our settings, from
 * a manager's template say.  When it is loaded the server warns, in the log of
 * that one backend, and goes on with the default.  That must not be all that an
 * operator ever hears of a promotion_grace of "abc".
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/memutils.h"

#include "leader_election.h"

static const char *const names[] = {
	"leader_election.allow_in_transaction",
	"leader_election.history_retention",
	"leader_election.log_terms",
	"leader_election.max_lease",
	"leader_election.memory_limit",
	"leader_election.notify",
	"leader_election.promotion",
	"leader_election.promotion_grace",
	"leader_election.sweep_interval",
	"leader_election.sweep_jitter",
	"leader_election.sweeper",
};

/* What was there before; NULL: nothing, or it makes sense */
static char *given[lengthof(names)];

/* What has counted since */
static char *instead[lengthof(names)];

static char *
setting_text(const char *name)
{
	const char *text = GetConfigOption(name, true, false);

	return text == NULL ? NULL : MemoryContextStrdup(TopMemoryContext, text);
}

/* Before the settings are defined: what has been given for them? */
void
le_settings_note(void)
{
	for (int i = 0; i < lengthof(names); i++)
		given[i] = setting_text(names[i]);
}

/* After that: which of it makes no sense? */
void
le_settings_judge(void)
{
	for (int i = 0; i < lengthof(names); i++)
	{
		instead[i] = setting_text(names[i]);

		/* 0: refused, whatever else it may say of a trial */
		if (given[i] != NULL &&
			set_config_option(names[i], given[i], PGC_SIGHUP, PGC_S_FILE,
							  GUC_ACTION_SET, false, DEBUG5, false) != 0)
			given[i] = NULL;
	}
}

/*
 * What to tell of the first setting from *n on that is ignored still, *n is then
 * behind it; NULL: there is none.
 */
const char *
le_settings_ignored(int *n)
{
	while (*n < lengthof(names))
	{
		int			i = (*n)++;

		/* another value: it has been set to one that makes sense */
		if (given[i] != NULL &&
			strcmp(GetConfigOption(names[i], false, false), instead[i]) == 0)
			return psprintf("%s = \"%s\" makes no sense and is ignored, it is %s",
							names[i], le_printable(given[i]),
							GetConfigOptionByName(names[i], NULL, false));
	}
	return NULL;
}
