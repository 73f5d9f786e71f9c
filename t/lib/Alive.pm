# Alive.pm
# Processes of "leaderctl run" under test, and the checker that judges when
# their commands have run: what alive.c has recorded, by the machine's clock,
# against each other and against what the server has logged.
#
# The server's log is the other witness, independent of what leaderctl believes:
# with log_min_duration_statement = 0 it has the time at which it began and ended
# to execute each call.  A call was sent before it began, so a lease that a
# heartbeat has renewed ends for its client no later than that plus its length;
# and one that le_campaign has granted (whose valid_for_ms counts 9/10 of the
# wait) no later than the end of that call plus its length.

package Alive;

use strict;
use warnings;

use FindBin;
use POSIX qw(:sys_wait_h);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime usleep CLOCK_BOOTTIME CLOCK_REALTIME);

our $limit = $PostgreSQL::Test::Utils::timeout_default / 4;
our $build;       # where the programs are, and the records
our $program;
our $alive;
our @started;     # all that this test has started
our $witness;     # pid

# For postgresql.conf: what the checker reads
our $server_settings = q{
log_line_prefix = '%n %p '
log_min_duration_statement = 0
log_statement = none
log_duration = off
log_connections = off
log_disconnections = off
};

# wall clock less machine's clock, at the least: what turns the log's times into
# times that are rather too late
my $offset;

sub now
{
	my ($before, $wall, $after) =
	  (clock_gettime(CLOCK_BOOTTIME), clock_gettime(CLOCK_REALTIME), clock_gettime(CLOCK_BOOTTIME));
	$offset = $wall - $after if !defined $offset || $wall - $after < $offset;
	return $before;
}

# Build leaderctl as its users do, without the server's development files, and
# the command; start the witness.
sub build
{
	my $source = "$FindBin::RealBin/../leaderctl";
	chomp(my $pg_config = `which pg_config`);
	$build = PostgreSQL::Test::Utils::tempdir();
	$program = "$build/leaderctl";
	$alive = "$build/alive";
	return 0
	  if system("cp $source/*.[ch] $source/Makefile $build && make -s -C $build PG_CONFIG=$pg_config COPT=-Werror leaderctl"
		  . " && cc -O2 -std=gnu11 -Wall -Wextra -Werror -o $alive $FindBin::RealBin/lib/alive.c");
	$witness = spawn('/dev/null', $alive, 'witness', "$build/witness");

	# orphans stay in their session, as in a container: if they left it the kernel
	# would wake those that are stopped
	eval { require 'syscall.ph'; syscall(main::SYS_prctl(), 36, 1, 0, 0, 0) == 0 }
	  or diag("whether a keeper wakes by itself is not tried: $@$!");
	now();
	return 1;
}

# Start a process; its output goes to a file.
sub spawn
{
	my ($file, @command) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>>', $file);
	open(STDERR, '>&', \*STDOUT);
	exec(@command) or POSIX::_exit(127);
}

END
{
	local $?;
	foreach my $self (grep { !defined $_->{status} } @started)
	{
		kill $_, $self->{pid} foreach ('KILL', 'CONT');
		waitpid($self->{pid}, 0);
	}
	kill 'KILL', $witness if $witness;

	# what a keeper that is broken has not ended
	kill 'KILL', grep { $_ != $$ } map { /(\d+)/ } grep { of_test($_) } glob('/proc/[0-9]*') if $build;
}

sub of_test
{
	my ($directory) = @_;
	open(my $in, '<', "$directory/cmdline") or return 0;
	local $/;
	return (<$in> // '') =~ /^\Q$build\E\/(leaderctl|alive)\0/;
}

# Start one.  name, lock, options: a list; how: what its command does against
# being ended, see alive.c; command: another one; around: what is put before it;
# env: its environment.
sub new
{
	my ($class, %self) = @_;
	my $self = bless({ how => '', options => [], around => [], env => {}, %self }, $class);
	$self->{dir} = "$build/$self->{name}";
	mkdir $self->{dir} or die "$self->{dir}: $!";
	my @command = $self->{command} ? @{ $self->{command} } : ($alive, $self->{dir}, split(/ /, $self->{how}));
	local %ENV = (%ENV, PGAPPNAME => $self->{name}, %{ $self->{env} });
	$self->{began} = now();
	$self->{pid} = spawn("$self->{dir}.out", @{ $self->{around} },
		$program, 'run', '-l', $self->{lock}, '--instance', $self->{name}, @{ $self->{options} }, '--', @command);
	push @started, $self;
	return $self;
}

sub said
{
	my ($self) = @_;
	return -e "$self->{dir}.out" ? slurp_file("$self->{dir}.out") : '';
}

# What the processes of its command have recorded, the earliest first
sub records
{
	my ($self) = @_;
	my @records;
	opendir(my $dir, $self->{dir}) or die "$self->{dir}: $!";
	foreach my $file (grep { /^[0-9]/ } readdir($dir))
	{
		open(my $in, '<', "$self->{dir}/$file") or next;
		binmode $in;
		my $read = read($in, my $record, 24);
		close $in;
		my ($first, $last, $keeper) = unpack('q3', $record // '');
		next unless $read == 24 && $first;    # killed before it has done anything
		my ($token, $pid) = split(/\./, $file);
		push @records, { token => $token, pid => $pid, first => $first / 1e9, last => $last / 1e9, keeper => $keeper };
	}
	closedir($dir);
	return sort { $a->{first} <=> $b->{first} } @records;
}

# When its command has last been alive; 0: never
sub last_sign
{
	my ($self) = @_;
	my $last = 0;
	foreach my $record ($self->records) { $last = $record->{last} if $record->{last} > $last; }
	return $last;
}

# Has its command been alive after that time?
sub works_since
{
	my ($self, $time) = @_;
	return $self->last_sign > $time;
}

# The record of the newest process that a keeper has started
sub newest
{
	my ($self) = @_;
	my @records = grep { $_->{keeper} } $self->records;
	return $records[-1];
}

# Is this process its command, or its keeper?
sub is_ours
{
	my ($self, $pid) = @_;
	open(my $in, '<', "/proc/$pid/cmdline") or return 0;
	local $/;
	return $pid != $self->{pid} && (<$in> // '') =~ /\0\Q$self->{dir}\E\0/;
}

# The keeper of a command that runs; undef: it does not any more
sub keeper
{
	my ($self) = @_;
	my $keeper = $self->newest->{keeper};
	return $self->is_ours($keeper) ? $keeper : undef;
}

# Is there anything of its command, or its keeper?
sub is_there
{
	my (@all) = @_;
	my %name = map { $_->{dir} => $_->{name} } @all;
	my %there;
	my %leaderctl = map { $_->{pid} => 1 } @all;
	foreach my $file (glob('/proc/[0-9]*/cmdline'))
	{
		open(my $in, '<', $file) or next;
		local $/;
		my $cmdline = <$in> // '';
		close $in;
		next if $leaderctl{ (split(/\//, $file))[2] };
		foreach my $word (split(/\0/, $cmdline))
		{
			$there{ $name{$word} } = 1 if $name{$word};
		}
	}
	my @there = sort keys %there;
	return @there;
}

# It, its keeper, and what there is of its command, as ps shows them
sub processes
{
	my ($self) = @_;
	return grep { /^ *$self->{pid} | \Q$self->{dir}\E( |$)/m } `ps -e -o pid,ppid,stat,etimes,wchan:20,args`;
}

# Does somebody keep what there is of its command?
sub is_kept
{
	my ($self) = @_;
	return !is_there($self) || (defined $self->newest && defined $self->keeper);
}

# Wait until nothing is left of them.
sub all_gone
{
	my (@all) = @_;
	await("nothing is left of " . (@all > 2 ? scalar @all : join(' and ', map { $_->{name} } @all)),
		sub { return !is_there(@all) });
	return;
}

# Its status if it has ended, 128 + n for a signal; undef: it has not
sub status
{
	my ($self) = @_;
	if (!defined $self->{status} && waitpid($self->{pid}, WNOHANG) == $self->{pid})
	{
		$self->{status} = WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
	}
	return $self->{status};
}

sub signal
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid} unless defined $self->status;
	return;
}

# Wait for a condition.
sub await
{
	my ($name, $condition) = @_;
	my $end = now() + $limit;
	my $met;
	until ($met = $condition->())
	{
		last if now() > $end;
		usleep(10_000);
	}
	# there is no sense in what would follow
	ok($met, $name) or die "not within $limit s: $name\n";
	return;
}

sub is_over
{
	my ($self, $status, $name) = @_;
	my $end = now() + $limit;
	usleep(10_000) until defined $self->status || now() > $end;
	return is($self->{status}, $status, "$self->{name}: $name") || diag($self->said);
}

# ---- The checker ----

# What the scheduler may have cost between these times: four times what a witness
# has been late at the worst, as who ends processes is to be run several times.
# 0 while none is late by more than a fifth of the keeper's
# margin.
sub pause
{
	my ($from, $to) = @_;
	my $worst = 0;
	return 0 unless -e "$build/witness";
	foreach (split /\n/, slurp_file("$build/witness"))
	{
		my ($end, $late) = /^(\d+\.\d+) (\d+\.\d+)$/ or next;
		$worst = $late if $late > $worst && $end > $from && $end - $late < $to;
	}
	return 4 * $worst;
}

# What the servers' logs tell: the calls of each leaderctl, by its name, as
# [function, token or lease, begin, end].
sub calls
{
	my (@logs) = @_;
	my (%calls, %bound);
	foreach my $log (@logs)
	{
		open(my $in, '<', $log) or die "$log: $!";
		while (my $line = <$in>)
		{
			my ($time, $pid, $rest) = $line =~ /^(\d+\.\d+) (\d+) (.*)/ or next;

			# the line of an execution lacks the values where that has committed
			if ($rest =~ /^DETAIL:  parameters: \$1 = '-?\d+', \$2 = '([^']*):[^':]*', \$3 = '(\d+)'/i)
			{
				$bound{$pid} = [ $1, $2 ];
			}
			elsif ($rest =~ /^LOG:  duration: (\d+\.\d+) ms  execute .*\.(le_campaign|le_keep_alive|le_release|le_transfer)\(/)
			{
				my ($name, $value) = @{ $bound{$pid} };
				# the log's milliseconds are rounded down
				push @{ $calls{$name} }, [ $2, $value, $time + 0.001 - $1 / 1000 - $offset, $time + 0.001 - $offset ];
			}
		}
		close $in;
	}
	@{$_} = sort { $a->[3] <=> $b->[3] } @{$_} foreach values %calls;
	return \%calls;
}

# The terms of some leaderctls of one lock, by when their commands ran, the
# earliest first.  A command that was frozen together with its keeper is not
# counted: excused has its token, and when they woke.
sub terms
{
	my ($excused, @all) = @_;
	my %terms;
	foreach my $self (@all)
	{
		foreach my $record ($self->records)
		{
			next if $record->{first} < ($excused->{ $record->{token} } // 0);
			my $term = $terms{"$record->{token} $self->{name}"} //=
			  { token => $record->{token}, of => $self, first => $record->{first}, last => 0, records => [] };
			$term->{last} = $record->{last} if $record->{last} > $term->{last};
			push @{ $term->{records} }, $record;
		}
	}
	return sort { $a->{first} <=> $b->{first} } values %terms;
}

# The latest time that the client may count on for a process that it has started,
# and the earliest at which it has asked for the end of the term
sub bounds
{
	my ($calls, $lease, $record) = @_;
	my ($elected, $kept, $given_up) = (0, 0);
	foreach my $call (@{$calls})
	{
		my ($function, $value, $begin, $end) = @{$call};
		if ($function eq 'le_campaign')
		{
			# the last one before the process: while it was there nobody asked
			$elected = $end + $lease if $end - 0.2 <= $record->{first};
		}
		elsif ($value eq $record->{token} && $function eq 'le_keep_alive')
		{
			$kept = $begin + $lease if $begin <= $record->{last};
		}
		elsif ($value eq $record->{token})
		{
			$given_up //= $begin;
		}
	}
	return ($elected > $kept ? $elected : $kept, $given_up);
}

# Judge the commands of these leaderctls, which have one lock and one lease, in
# seconds.  Returns what is wrong, and the number of terms.
sub judge
{
	my ($calls, $lease, $excused, @all) = @_;
	my (@wrong, $latest);
	my @terms = terms($excused, @all);

	foreach my $term (@terms)
	{
		my $name = "$term->{of}{name} with token $term->{token}";

		# never two at once: who begins begins when all before are gone
		if ($latest)
		{
			my $before = "$latest->{of}{name} with token $latest->{token}";
			push @wrong, sprintf('%s still ran %.3f s after %s had begun', $before, $latest->{last} - $term->{first}, $name)
			  if $latest->{last} >= $term->{first};
			push @wrong, "$name came after $before" if $latest->{token} >= $term->{token};
		}
		$latest = $term if !$latest || $term->{last} > $latest->{last};

		foreach my $record (@{ $term->{records} })
		{
			my ($deadline, $given_up) = bounds($calls->{ $term->{of}{name} } // [], $lease, $record);
			my $late = $record->{last} - $deadline;
			push @wrong, sprintf('%s ran %.3f s after its end was asked for', $name, $record->{last} - $given_up)
			  if $given_up && $record->{last} > $given_up;
			next if $late <= 0;
			my $pause = pause($deadline - 0.1, $record->{last});
			my $text = sprintf('%s ran %.3f s past its deadline at %.3f, which the scheduler excuses for %.3f s', $name, $late, $deadline, $pause);
			if ($late > $pause) { push @wrong, $text }
			else { diag($text) }
		}
	}
	return (\@wrong, scalar @terms);
}

# Of those excused: what went on when they had woken
sub judge_woken
{
	my ($excused, @all) = @_;
	my @wrong;
	foreach my $self (@all)
	{
		foreach my $record (grep { $_->{first} < ($excused->{ $_->{token} } // 0) } $self->records)
		{
			my $woken = $excused->{ $record->{token} };
			my $late = $record->{last} - $woken;
			push @wrong, sprintf('%s ran on for %.3f s', $self->{name}, $late)
			  if $late > 0.1 + pause($woken, $record->{last});
		}
	}
	return @wrong;
}

1;
