# The houses have floors: each source file uses only files further down in the map
# of its folder's header, so it can be read from the ground up, and none of them
# has outgrown an evening.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = "$FindBin::RealBin/..";

# leaderctl has tables and a long statement
foreach my $house ([ 'src', 460 ], [ 'leaderctl', 530 ])
{
	my ($folder, $limit) = @{$house};
	my ($out, $err) = run_command([ "$source/scripts/arrows", glob("$source/$folder/*.o") ]);
	is($err, '', "$folder: each file stands in the map, and says on which floor");
	like($out, qr/^\d+ uses of each other in \d+ files, all go down$/, 'all arrows go down');

	foreach my $file (glob("$source/$folder/*.c"))
	{
		my $lines = () = slurp_file($file) =~ /\n/g;
		cmp_ok($lines, '<=', $limit, "$file has no more than $limit lines");
	}
}

done_testing();
