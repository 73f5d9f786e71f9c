/*-------------------------------------------------------------------------
 *
 * messages.c
 *	  What messages show.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "leader_election.h"

/* What a view says */
const char *
le_phase_name(LePhase phase)
{
	switch (phase)
	{
		case LE_PHASE_LIVE:
			return "live";
		case LE_PHASE_RESTARTED:
			return "restarted";
		case LE_PHASE_GRACE:
			return "grace";
		case LE_PHASE_REVOKED:
			return "revoked";
		case LE_PHASE_HELD:
			return "held";
		case LE_PHASE_EXPIRED:
			return "expired";
		case LE_PHASE_VACANT:
			return "vacant";
	}
	pg_unreachable();
}

/*
 * A string as a message may show it, whoever it comes from.  A message that the
 * client's encoding cannot express would be replaced by an error about that,
 * and its SQLSTATE be lost: so unless the bytes go to the client as they are,
 * only those stay that no conversion can fail on.
 */
char *
le_printable(const char *string)
{
	char	   *shown = pstrdup(string != NULL ? string : "???");	/* it is gone */

	if (GetDatabaseEncoding() == PG_SQL_ASCII ||
		GetDatabaseEncoding() != pg_get_client_encoding())
	{
		for (char *c = shown; *c != '\0'; c++)
		{
			if (*c < ' ' || *c > '~')
				*c = '?';
		}
	}
	return shown;
}
