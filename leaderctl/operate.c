/*-------------------------------------------------------------------------
 *
 * operate.c
 *	  resign, revoke, transfer, release.
 *
 *-------------------------------------------------------------------------
 */
#include "leaderctl.h"


int
resign_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}

int
revoke_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}

int
transfer_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}

int
release_command(Target *target, const Options *options)
{
	(void) target;
	(void) options;
	die(EXIT_FAILED, "not yet");
}
