# What an operator has besides the program: its manual, which says what the
# program does; the completion; the examples, which work as they are.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

plan skip_all => 'make LEADERCTL=no' if ($ENV{LEADERCTL} // '') eq 'no';

my $limit = $PostgreSQL::Test::Utils::timeout_default;
my $top = abs_path("$FindBin::RealBin/..");
my $manual = "$top/leaderctl/leaderctl.1";
my $completion = "$top/leaderctl/completion.bash";
my $examples = "$top/examples/leaderctl";
my $scratch = PostgreSQL::Test::Utils::tempdir();
my ($leaderctl) = grep { -x } map { "$_/leaderctl" } split /:/, $ENV{PATH};
ok($leaderctl, 'leaderctl is installed') or BAIL_OUT('no leaderctl in PATH');

# The status of a program, and what it says on both
sub run
{
	my @command = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($limit));
	return ($? >> 8, $out, $err);
}

sub has
{
	my ($program) = @_;
	return scalar grep { -x "$_/$program" } split /:/, $ENV{PATH};
}

# ---- The manual's form ----

SKIP:
{
	my @lint = has('mandoc') ? qw(mandoc -T lint) : has('groff') ? qw(groff -ww -mandoc -z) : ();
	if (!@lint)
	{
		diag('neither mandoc nor groff is installed: the manual is not checked');
		skip('neither mandoc nor groff', 1);
	}
	my (undef, $out, $err) = run(@lint, $manual);

	# that depends on what this machine has
	my @said = grep { !/referenced manual not found|outdated mandoc\.db/ } split /\n/, "$out$err";
	is("@said", '', "no complaint of @lint");
}

# ---- The manual and the program's help ----

my $text = slurp_file($manual);
my ($commands_text) = $text =~ /^\.Sh COMMANDS\n(.*?)^\.Sh /ms;
my ($synopsis) = $text =~ /^\.Sh SYNOPSIS\n(.*?)^\.Sh /ms;

# by section: by option, what is said of it
my (%manual, @sections);
foreach my $section (split /^\.Ss /m, $commands_text)
{
	my ($name, $rest) = $section =~ /\A([^\n]*)\n(.*)\z/s or next;
	push @sections, $name;
	foreach my $item (split /^\.It /m, $rest)
	{
		$item =~ s/\\&//g;
		my ($letter, $option, $equals) = $item =~ /\A(?:Fl (\S) , )?Fl -(\S+)( Ns = Ns)?/ or next;
		$item =~ s/\s+/ /g;
		$manual{$name}{ ($letter ? "-$letter, " : '') . "--$option" . ($equals ? '=' : '') } = $item;
	}
}
my $for_all = delete $manual{'Options of all commands'};
ok($for_all, 'the manual has a section for the options of all commands');

sub help
{
	my ($status, $out, $err) = run($leaderctl, @_, '--help');
	is("$status $err", '0 ', "@_ --help");
	is(join("\n", grep { length > 80 } split /\n/, $out), '', '... fits 80 columns');
	return $out;
}

my @commands = help() =~ /^Commands:\n(.*?)\n\n/ms ? $1 =~ /^  (\S+) /mg : ();
is("@sections", "@commands Options of all commands", 'a section for each command, and no other');
is(join(' ', $synopsis =~ /^\.Cm (\S+)$/mg), "@commands", 'and the synopsis of each');

# as completion tells them, by command
my %options;
foreach my $command (@commands)
{
	my (%help, %argument);
	foreach (split /\n/, help($command))
	{
		/^\s+(-\S, )?--([a-z-]+)(?:(=)(\S+))?\s+(.*)/ or next;
		my $option = ($1 // '') . "--$2" . ($3 // '');
		$help{$option} = $5;
		$argument{$option} = $4 // '';
		push @{ $options{$command} }, "--$2" . ($3 // '');
	}
	my %said = (%{ $manual{$command} // {} }, %{$for_all});
	is(join("\n", sort keys %said), join("\n", sort keys %help), "$command: the options of the manual");

	foreach my $option (sort keys %help)
	{
		my $item = $said{$option} // '';
		like($item, qr/ The default is \Q$1\E\./, "$command $option: its default")
		  if $help{$option} =~ /\((\d\w*)\)$/;

		# these two have a bound in words
		next if $option =~ /jitter|kill-after/ || $argument{$option} !~ /^(DURATION|N)$/;
		my ($name) = $option =~ /(--[a-z-]+)/;
		my (undef, undef, $err) =
		  run($leaderctl, $command, $name, $argument{$option} eq 'N' ? 999999999 : '399d');
		my ($range) = $err =~ /is outside the range (\S+ to \S+)$/m;
		isnt($range, undef, "$command $option: has a range") or next;
		like($item, qr/\b\Q$range\E\b/, "$command $option: its range");
	}
}

# what the program reckons with if nothing is said
foreach my $case (
	[ '--renew=9s', '--lease 10s is shorter than twice --renew 9s plus --jitter 2s' ],
	[ '--jitter=4s', '--jitter 4s is longer than --renew 3s' ],
	[ '--lease=2s', '--renew=400ms', '--jitter=0s', '--kill-after=2s', '--kill-after 2s leaves no time' ],
	[ '--lease=1500ms', '--renew=400ms', '--jitter=0s', '--kill-after 1s leaves no time' ])
{
	my ($expected, @arguments) = reverse @{$case};
	my ($status, undef, $err) = run($leaderctl, 'run', '-l', 1, @arguments, '--', 'true');
	like($err, qr/\Q$expected\E/, "run @arguments: the other's defaults");
}

# ---- Completion ----

# What it offers for these words, the last of which is being written
sub complete
{
	my ($before, @words) = @_;
	my $script = qq{$before
		source '$completion'
		COMP_WORDS=("\$@") COMP_CWORD=\$((\$# - 1))
		_leaderctl
		printf '%s\\n' "\${COMPREPLY[@]}" | sort -u};
	my ($status, $out, $err) = run('bash', '--norc', '-c', $script, 'bash', @words);
	is($err, '', "no complaint: @words");
	return join(' ', split(/\n/, $out));
}

is(complete('', $leaderctl, ''),
	join(' ', sort(@commands, help() =~ /^\s+(?:-\S, )?(--[a-z-]+=?)/mg)), 'commands');
is(complete('', $leaderctl, 're'), 'release resign revoke', 'commands that begin so');
foreach my $command (@commands)
{
	is(complete('', $leaderctl, $command, '--'), join(' ', sort @{ $options{$command} }),
		"$command: the options of its help");
}
mkdir "$scratch/bin";
foreach my $program ('zz-job', 'zz-other')
{
	append_to_file("$scratch/bin/$program", "#!/bin/sh\n");
	chmod 0755, "$scratch/bin/$program";
}
my $path = "PATH=$scratch/bin:\$PATH";
foreach my $case (
	[ 'an option that begins so', [ 'run', '--heal' ], '--health-every= --health-failures= --health=' ],
	[ 'a format', [ 'status', '--format', '' ], 'json table' ],
	[ 'a format behind "="', [ 'history', '--format', '=', 'j' ], 'json' ],
	[ 'a format right behind "="', [ 'history', '--format', '=' ], 'json table' ],
	[ 'a format in one word', [ 'status', '--format=t' ], '--format=table' ],
	[ 'a file', [ 'run', '--status-file', "$scratch/bin/zz" ], "$scratch/bin/zz-job $scratch/bin/zz-other" ],
	[ 'nothing for a duration', [ 'run', '--lease', '' ], '' ],
	[ 'an option behind an argument', [ 'run', '--lock', 'x', '--onc' ], '--once' ],
	[ 'the command to run', [ 'run', '--lock', 'x', '--', 'zz-' ], 'zz-job zz-other' ],
	[ 'the command to run without "--"', [ 'watch', '--lock', '=', 'x', 'zz-' ], 'zz-job zz-other' ],
	[ 'its arguments are files', [ 'run', '-l', 'x', 'zz-job', "$scratch/bin/zz-o" ], "$scratch/bin/zz-other" ],
	[ 'nothing to run', [ 'status', '--lock', 'x', 'zz-' ], '' ],
	[ 'not our options behind the command', [ 'run', '--lock', 'x', '--', 'zz-job', '--onc' ], '' ])
{
	my ($name, $words, $expected) = @{$case};
	is(complete($path, $leaderctl, @{$words}), $expected, "completion: $name");
}
is(complete('_command_offset() { COMPREPLY=("offset $1"); }', $leaderctl, 'run', '--lock', 'x', '--', 'zz-job', '-'),
	'offset 5', 'completion: the command by bash-completion, where it is loaded');

# ---- Installation ----

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my ($bindir, $mandir, $sharedir) =
	  map { (run($pg_config, $_))[1] } ('--bindir', '--mandir', '--sharedir'));

sub make
{
	my ($directory, $pg_config, @args) = @_;
	local %ENV = %ENV;
	delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
	my ($status, $out, $err) = run('make', '-s', '-C', $directory, "PG_CONFIG=$pg_config", 'with_llvm=no', @args);
	is($status, 0, "make @args") or diag($err);
	return $out;
}

sub installed
{
	my ($to) = @_;
	my ($status, $out) = run('find', $to, '-type', 'f', '-path', '*leaderctl*');
	return join("\n", map { s/^\Q$to\E//r } sort split /\n/, $out);
}

make($top, $pg_config, 'install', "DESTDIR=$scratch/to");
(my $share = $sharedir) =~ s,/share\K/.*,,;
is( installed("$scratch/to"),
	join("\n", sort("$bindir/leaderctl", "$mandir/man1/leaderctl.1", "$share/bash-completion/completions/leaderctl")),
	'program, manual and completion are installed with the extension');
make($top, $pg_config, 'uninstall', "DESTDIR=$scratch/to");
is((run('find', "$scratch/to", '-type', 'f'))[1], '', 'and nothing is left of them');
make($top, $pg_config, 'install', "DESTDIR=$scratch/without", 'LEADERCTL=no');
is(installed("$scratch/without"), '', 'LEADERCTL=no leaves them out');
make("$top/leaderctl", $pg_config, 'install', "DESTDIR=$scratch/else", 'bindir=/b', 'mandir=/m', 'completionsdir=/c');
is(installed("$scratch/else"), "/b/leaderctl\n/c/leaderctl\n/m/man1/leaderctl.1", 'directories can be chosen');

# libpq-dev's pg_config knows of no server
append_to_file("$scratch/pg_config", qq{#!/bin/sh
case \$1 in
	--bindir | --mandir | --sharedir | --libdir | --includedir) exec '$pg_config' "\$1" ;;
esac
echo "asked for \$1" >> '$scratch/asked'
exit 1
});
chmod 0755, "$scratch/pg_config";
make("$top/leaderctl", "$scratch/pg_config", '-n', '-B', 'install');
ok(!-e "$scratch/asked", 'leaderctl is built without the server\'s development files');

# ---- Examples ----

# The literal block of the manual that begins so
sub block
{
	my ($begin) = @_;
	my ($block) = $text =~ /^\.Bd -literal.*\n(\Q$begin\E.*?)^\.Ed$/ms;
	ok($block, "the manual has a block: $begin") or return '';
	$block =~ s/\\e/\\/g;
	$block =~ s/\\&//g;
	return $block;
}

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;

sub sql
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# the grants that the manual names, and no others
my $grants = block('run:');
$grants =~ s/^\S[^A-Z\n]*://mg;
sql('CREATE EXTENSION leader_election; CREATE DATABASE app TEMPLATE template0;
	CREATE ROLE app LOGIN; CREATE ROLE follower LOGIN; CREATE ROLE monitor LOGIN; CREATE ROLE operator LOGIN;');
sql($grants);
my @connection = ('-h', $node->host, '-p', $node->port, '-d', 'postgres');
foreach my $case (
	[ 'app', 'run', '--yield', '--once', 'true' ],
	[ 'monitor', 'status', '--watch' ],
	[ 'follower', 'watch', 'true' ],
	[ 'monitor', 'history' ],
	[ 'monitor', 'warnings' ],
	[ 'operator', 'resign' ],
	[ 'operator', 'revoke' ],
	[ 'app', 'transfer', '--instance=a', '--token=1' ],
	[ 'app', 'release', '--instance=a', '--token=1' ])
{
	my ($role, $command, @args) = @{$case};
	my @lock = $command eq 'warnings' ? () : ('--lock=1');
	my @run = ('timeout', '-s', 'INT', '3', $leaderctl, $command, @connection, '-U', $role, @lock, @args);
	my ($status, undef, $err) = run($command =~ /^(status|watch)$/ ? @run : @run[4 .. $#run]);
	unlike($err, qr/GRANT|may not/, "$command needs no other grants");
	isnt($status, 2, '... and is let in');
}

# Cron: settings of the environment, and the line
sub crontab
{
	my ($text) = @_;
	my @lines = grep { /^[^#]/ } split /\n/, $text;
	return join("\n", @lines);
}
my $crontab = crontab(block('PGHOST=db1,db2'));
is($crontab, crontab(slurp_file("$examples/crontab")), 'the manual and the example have the same crontab');
my ($line) = $crontab =~ /^(?:\S+ ){5}app (.*)$/m;
my %setting = $crontab =~ /^([A-Z]+)=(.*)$/mg;
is(join(' ', sort keys %setting), 'PATH PGDATABASE PGHOST PGUSER', 'and these settings');
is($setting{PGUSER}, 'app', 'the role that has the grants');
append_to_file("$scratch/bin/report", qq{#!/bin/sh
echo ran >> '$scratch/ran'
until [ -e '$scratch/go' ]; do sleep 0.01; done
});
chmod 0755, "$scratch/bin/report";
(my $bin = $leaderctl) =~ s,/leaderctl$,,;

sub runs
{
	my ($run) = @_;
	$run->pump_nb if $run->pumpable;
	return $run->pumpable;
}

# Run it as cron does, at once on so many hosts; their statuses
sub cron
{
	my ($command, $hosts) = @_;
	my @environment = (
		"HOME=$scratch", 'LOGNAME=app', 'SHELL=/bin/sh', "PATH=$bin:$scratch/bin:$setting{PATH}",
		'PGHOST=' . $node->host, 'PGPORT=' . $node->port, "PGUSER=$setting{PGUSER}", 'PGDATABASE=postgres');
	my @said = ('') x $hosts;
	unlink "$scratch/go";
	my @runs = map {
		IPC::Run::start([ 'env', '-i', @environment, 'sh', '-c', $command ],
			'<', \undef, '>&', \$said[$_], IPC::Run::timeout($limit))
	} 0 .. $hosts - 1;

	# the job takes until the others are gone
	usleep(10_000) while grep({ runs($_) } @runs) > 1;
	append_to_file("$scratch/go", '');
	$_->finish foreach @runs;
	is(join('', @said), '', '... cron has nothing to mail');
	return join(' ', sort map { $_->full_result(0) >> 8 } @runs);
}

sub ran
{
	return -e "$scratch/ran" ? scalar(() = slurp_file("$scratch/ran") =~ /^ran$/mg) : 0;
}

is(cron($line, 3), '0 3 3', 'three hosts at once: one has run the job');
is(ran(), 1, '... once');
is(cron($line, 1), '3', 'a host whose clock is late');
is(ran(), 1, '... does not run it again');
(my $often = $line) =~ s/--at-most-every=22h/--at-most-every=1s/;
$often =~ s/--lock=report/--lock=other/;
is(cron($often, 3), '0 3 3', 'with a shorter hold');
is(ran(), 2, '... the same');
$node->poll_query_until('postgres', q{SELECT NOT EXISTS
		(SELECT FROM leader_lease WHERE id = le_lock_id('other') AND state = 'held')});
is(cron($often, 3), '0 3 3', 'when the hold is over');
is(ran(), 3, '... one runs the job again');

# Fencing
append_to_file("$scratch/work", block('#!/bin/sh'));
chmod 0755, "$scratch/work";
sql('CREATE TABLE orders (state int); INSERT INTO orders VALUES (0);
	GRANT SELECT, UPDATE ON orders TO app; GRANT EXECUTE ON FUNCTION le_guard TO app');
my @once = ($leaderctl, 'run', @connection, '-U', 'app', '--lock=orders', '--once', '--');
my ($status, undef, $err) = run(@once, "$scratch/work");
is($status, 0, 'a guarded command') or diag($err);
is(sql('SELECT state FROM orders'), '1', '... has done its work');
sql('UPDATE orders SET state = 0');
($status, undef, $err) = run(@once, 'sh', '-c', "LEADER_TOKEN=1 $scratch/work");
isnt($status, 0, 'one of another term fails');
is(sql('SELECT state FROM orders'), '0', '... and has done nothing');

# The load balancer's check
SKIP:
{
	if (!has('jq'))
	{
		diag('jq is not installed: the check of the status file is not tried');
		skip('no jq', 4);
	}
	my ($check) = $text =~ /^(jq -e .*)$/m;
	my $path = "$scratch/status";
	my $run = IPC::Run::start(
		[ $leaderctl, 'run', @connection, '-U', 'app', '--lock=5', "--status-file=$path", '--', 'sleep', '1000' ],
		'<', \undef, '>&', \my $said, IPC::Run::timeout($limit));
	$check =~ s/ \S+$/ $path/;
	my $end = time() + $limit;
	usleep(10_000) until (run('sh', '-c', $check))[0] == 0 || time() > $end;
	is((run('sh', '-c', $check))[0], 0, 'the check of a load balancer: this host leads');
	my $file = slurp_file($path);
	my ($keys) = $text =~ /^\.Sh FILES\n(.*?)^\.Sh /ms;
	is( join(' ', sort map { split / , / } $keys =~ /^\.It Sy (.*)$/mg),
		join(' ', sort $file =~ /"(\w+)": /g), 'the keys of the file');
	foreach my $change ([ 'since an hour ago not any more', qr/"until": "\d+/, '"until": "2020' ],
		[ 'it waits', qr/"leads": true/, '"leads": false' ])
	{
		my ($name, $from, $to) = @{$change};
		(my $changed = $file) =~ s/$from/$to/ or die;
		unlink "$path.changed";
		append_to_file("$path.changed", $changed);
		is((run('sh', '-c', "$check.changed"))[0], 1, "... $name");
	}
	kill 'TERM', $run->{KIDS}[0]{PID};
	$run->finish;
	ok(!-e $path, 'the file is removed at the end');
}

# systemd
SKIP:
{
	my $unit = slurp_file("$examples/leaderctl\@.service");
	my @lines = grep { !/^(\[|ExecStart)/ } split /\n/, block('[Service]');
	is(join("\n", grep { $unit !~ /^\Q$_\E$/m } @lines), '', 'the unit has the lines of the manual');
	if (!has('systemd-analyze'))
	{
		diag('systemd-analyze is not installed: the unit is not verified');
		skip('no systemd-analyze', 2);
	}
	$unit =~ s,/usr/local/bin/leaderctl,$leaderctl,;
	append_to_file("$scratch/leaderctl\@.service", $unit);
	my ($status, $out, $err) = run('systemd-analyze', '--man=no', 'verify', "$scratch/leaderctl\@.service");
	is($status, 0, 'systemd-analyze verify');
	my @complaints = grep { !m,^/\S+/systemd/system/, } split /\n/, $out . $err;    # units of this machine
	is(join("\n", @complaints), '', '... has no complaint');
}

$node->stop;
done_testing();
