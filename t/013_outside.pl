# Resources that cannot look at the lease compare tokens: the two patterns of
# docs/fencing.md.  A deposed leader comes back to each and is refused.

use strict;
use warnings;

use Fcntl qw(LOCK_EX);
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# two terms, of which the first is over
my ($old, $new) = map {
	$node->safe_psql('postgres', "SELECT le_try_acquire(1, '$_', 600000)");
	my $token = $node->safe_psql('postgres', "SELECT le_token(1, '$_')");
	$node->safe_psql('postgres', "SELECT le_release(1, '$_')");
	$token;
} ('a', 'b');

subtest 'a table in another database' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql(
		'other', q{
		CREATE TABLE fence (resource text PRIMARY KEY, token bigint NOT NULL);
		INSERT INTO fence VALUES ('payments', 0)});
	my $enter = sub {
		my ($token) = @_;
		return $node->safe_psql(
			'other', "
			UPDATE fence SET token = $token
			 WHERE resource = 'payments' AND token <= $token
			RETURNING 'enters'");
	};
	is($enter->($old), 'enters', 'the first leader');
	is($enter->($old), 'enters', 'as often as it wants');
	is($enter->($new), 'enters', 'its successor');
	is($enter->($old), '', 'the first one is deposed');
	is($enter->($new), 'enters', 'and its successor has not noticed');
};

my $program = "$FindBin::RealBin/../examples/fenced-file";
my $dir = PostgreSQL::Test::Utils::tempdir();

# Append a line as the leader with a token; exit status and message.
sub append
{
	my ($token, $file, $line) = @_;
	my $error;
	write_file("$dir/input", "$line\n");    # no pipe: it may not be read
	IPC::Run::run([ $program, $token, $file ],
		'<', "$dir/input", '2>', \$error);
	return ($? >> 8) . $error;
}

sub content
{
	my ($file) = @_;
	return -e $file ? slurp_file($file) : undef;
}

sub write_file
{
	my ($file, $text) = @_;
	unlink $file;
	append_to_file($file, $text) if defined $text;
	return;
}

subtest 'a file' => sub {
	my $file = "$dir/file";
	is(append($old, $file, 'one'), '0', 'the first leader');
	is(append($old, $file, 'two'), '0', 'as often as it wants');
	is(append($new, $file, 'three'), '0', 'its successor');
	is( append($old, $file, 'four'),
		"1token $old is older than $new, which has written to $file\n",
		'the first one is deposed');
	is(append($new, $file, 'five'), '0', 'and its successor has not noticed');
	symlink($file, "$dir/link") or die "$dir/link: $!";
	like(append($old, "$dir/link", 'six'), qr/^1/, 'by another name, too');
	is(content($file), "one\ntwo\nthree\nfive\n", 'what was written');
	is(content("$file.token"), "$new\n", 'the mark');
};

subtest 'what is no token' => sub {
	my $file = "$dir/tokens";
	my $null = $node->safe_psql('postgres', "SELECT le_token(1, 'nobody')");
	is(append(5, $file, 'first'), '0', 'a token');
	my @numbers =
	  qw(-6 0 06 +6 6.0 6e1 0x6 9223372036854775808 18446744073709551622);
	my @words = qw(NULL x - * !);
	foreach my $bad (
		$null, @words, @numbers, ' 6', '6 ', "6\n",
		"6\n7", "\n", '6 -o 1', '1' x 50)
	{
		is(append($bad, $file, 'bad'), qq(2not a token: "$bad"\n), 'refused');
	}
	is(append(4, $file, 'older') =~ s/t.*//sr, '1',
		'the mark is still there');
	is(append('9223372036854775807', $file, 'last'), '0', 'the largest');
	is(append('9223372036854775806', $file, 'older') =~ s/t.*//sr,
		'1', 'and the next one');
	is(content($file), "first\nlast\n", 'what was written');
};

subtest 'a damaged mark' => sub {
	my $file = "$dir/marks";
	my $mark = "$file.token";
	write_file($file, "old\n");
	foreach my $bad ('', "\n", '6', "x\n", "6\n7\n", "6\n\n", " 6\n", "06\n",
		"-6\n", "6\0\n", "\0" x 16, "9223372036854775808\n")
	{
		write_file($mark, $bad);
		is(append(7, $file, 'bad'), "3$mark is damaged\n", 'refused');
		is(content($mark), $bad, 'left as it is');
	}
	write_file($mark, undef);
	is( append(7, $file, 'bad'),
		"3$file has data, but $mark is missing\n",
		'it is missing');
	mkdir $mark or die "$mark: $!";
	like(
		append(7, $file, 'bad'),
		qr/^3.*cannot read \Q$mark\E\n\z/s,
		'it cannot be read');
	rmdir $mark;
	symlink('nowhere', $mark) or die "$mark: $!";
	like(
		append(7, $file, 'bad'),
		qr/^3.*cannot read \Q$mark\E\n\z/s,
		'it leads nowhere');
	is(content($file), "old\n", 'nothing was written');
	write_file($mark, "0\n");
	is(append(7, $file, 'new'), '0', 'somebody has put it right');
	is(content($file), "old\nnew\n", 'what was written');
};

subtest 'the mark comes before the data' => sub {
	my $file = "$dir/order";
	is(append(5, $file, 'five'), '0', 'a token');
	mkdir "$file.token.new" or die "$file.token.new: $!";
	like(
		append(6, $file, 'six'),
		qr/^4.*cannot write \Q$file\E\.token\n\z/s,
		'a mark that cannot be written');
	is(content($file) . content("$file.token"),
		"five\n5\n", 'changes nothing');
	rmdir "$file.token.new";
	mkdir "$dir/no_file" or die "$dir/no_file: $!";
	write_file("$dir/no_file.token", "5\n");
	like(
		append(6, "$dir/no_file", 'six'),
		qr/^4.*cannot write to/s,
		'data that cannot be written');
	is(content("$dir/no_file.token"), "6\n", 'have their mark');
};

subtest 'two at once' => sub {
	my $file = "$dir/two";
	my ($input, $said) = ('', '');
	is(append(5, $file, 'five'), '0', 'a token');
	my $slow =
	  IPC::Run::start([ $program, 5, $file ], '<', \$input, '2>', \$said);
	$input .= "slow\n";
	$slow->pump_nb;
	is(append(6, $file, 'six'),
		'0', 'who waits for its input keeps nobody waiting');
	$slow->finish;
	is($slow->full_result(0) >> 8, 1, 'and is refused in the end');

	# the lock: hold it, and let one wait for it while the mark changes
	open(my $lock, '>>', "$file.lock") or die "$file.lock: $!";
	flock($lock, LOCK_EX) or die "flock: $!";
	my $waiting =
	  IPC::Run::start([ $program, 6, $file ], '<', "$dir/input", '2>',
		\$said);
	my $tries = 0;
	until (slurp_file('/proc/locks') =~ /-> FLOCK .*:${\ (stat $lock)[1]} /)
	{
		die 'it does not wait for the lock'
		  if $tries++ > 10 * $PostgreSQL::Test::Utils::timeout_default;
		$waiting->pump_nb;
		usleep(100_000);
	}
	write_file("$file.token", "7\n");
	close $lock;
	$waiting->finish;
	is($waiting->full_result(0) >> 8, 1, 'the mark is read under the lock');
	is(content($file), "five\nsix\n", 'what was written');
};

done_testing();
