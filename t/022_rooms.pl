# The house has floors: each source file uses only files further down in the map
# of src/leader_election.h, so it can be read from the ground up, and none of
# them has outgrown an evening.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = "$FindBin::RealBin/..";
my ($out, $err) = run_command([ "$source/scripts/arrows", glob("$source/src/*.o") ]);
is($err, '', 'each file stands in the map, and says on which floor');
like($out, qr/^\d+ uses of each other in \d+ files, all go down$/, 'all arrows go down');

foreach my $file (glob("$source/src/*.c"))
{
	my $lines = () = slurp_file($file) =~ /\n/g;
	cmp_ok($lines, '<=', 460, "$file has no more than 460 lines");
}

done_testing();
