use strict;
use warnings;
@@ dbd-pg
@@ dbd-pg-main
