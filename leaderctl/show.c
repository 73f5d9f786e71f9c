/*-------------------------------------------------------------------------
 *
 * show.c
 *	  status, history, warnings.
 *
 *-------------------------------------------------------------------------
 */
#include "leaderctl.h"


int
status_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}

int
history_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}

int
warnings_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}
