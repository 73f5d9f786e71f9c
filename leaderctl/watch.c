/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  leaderctl watch: a command at each change of leader.
 *
 *-------------------------------------------------------------------------
 */
#include "leaderctl.h"

int
watch_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}
