# The end of each program in Ruby: run_guarded(), execute() and sqlstate() are above.
$stdout.sync = true

def answer(command, sql)
  case command
  when 'me' then ME
  when 'token' then leads || 'none'
  when 'false' then $no
  else
    begin
      run_guarded(leads) do |handle|
        execute(handle, sql)
        if command == 'open'
          puts 'open'
          $stdin.gets
        end
      end
      'done'
    rescue StandardError => e
      warn e.full_message
      "error #{sqlstate(e)}"
    end
  end
end

# before the election begins, whose connection it is
$no = ask("SELECT le_is_leader(1, 'nobody') AS leads")['leads'] ? 'yes' : 'no'
election = Thread.new { elect }
while (line = $stdin.gets.chomp) != 'stop'
  command, sql = line.split(' ', 2)
  puts answer(command, sql)
end
$running = false
election.join
