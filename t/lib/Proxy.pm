# Between a client and a server on sockets in a directory: hands on what it gets,
# at once, or the server's answers late, or one more answer late and then nothing
# at all, either way, also of new connections.

package Proxy;

use strict;
use warnings;

use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOMAXCONN);
use Time::HiRes qw(time);

my @pids;

END
{
	local $?;
	kill 'KILL', @pids;
}

# A process of its own: from the socket $listen to the socket $server.
sub new
{
	my ($class, $listen, $server, $delay) = @_;
	my $listener = IO::Socket::UNIX->new(Local => $listen, Listen => SOMAXCONN) or die "$listen: $!";

	# from the begin, or a signal that comes soon would end it
	my ($late, $is_last) = (0, 0);
	local $SIG{USR1} = sub { $late = $delay };
	local $SIG{USR2} = sub { $is_last = 1 };
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid)
	{
		push @pids, $pid;
		return bless({ pid => $pid }, $class);
	}
	eval { serve($listener, $server, \$late, \$is_last) };
	print STDERR $@;
	POSIX::_exit(0);
}

sub slow { kill 'USR1', $_[0]{pid}; return; }
sub last_answer { kill 'USR2', $_[0]{pid}; return; }

sub stop
{
	my ($self) = @_;
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

sub serve
{
	my ($listener, $server, $late, $is_last) = @_;
	my $silent = 0;
	my $select = IO::Select->new($listener);
	my (%peer, %is_server, @queue);

	local $SIG{PIPE} = 'IGNORE';
	for (;;)
	{
		foreach my $ready ($select->can_read(@queue ? 0.002 : 0.05))
		{
			my $data;
			if ($ready == $listener)
			{
				my $client = $listener->accept or next;
				my $upstream = IO::Socket::UNIX->new(Peer => $server) or do { close $client; next };
				@peer{ $client, $upstream } = ($upstream, $client);
				$is_server{$upstream} = 1;
				$select->add($client, $upstream);
			}
			elsif (!$peer{$ready})
			{
				next;    # closed in this round, with its other end
			}
			elsif (sysread($ready, $data, 65536))
			{
				# an answer that was asked for before is the last
				next if $silent;
				push @queue, [ time() + ($is_server{$ready} ? ${$late} : 0), $peer{$ready}, $data, $is_server{$ready} ];
			}
			else
			{
				my $other = $peer{$ready};
				$select->remove($ready, $other);
				delete @peer{ $ready, $other };
				delete @is_server{ $ready, $other };
				close $_ foreach ($ready, $other);
			}
		}
		my $now = time();
		foreach my $due (sort { $a->[0] <=> $b->[0] } grep { $_->[0] <= $now } @queue)
		{
			last if $silent;
			my (undef, $to, $data, $is_answer) = @{$due};
			syswrite($to, $data) if $to->opened;
			$silent = 1 if ${$is_last} && $is_answer;
		}
		@queue = $silent ? () : grep { $_->[0] > $now } @queue;
	}
	return;
}

1;
