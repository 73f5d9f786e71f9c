# What docs/drivers.md says of ActiveRecord.
require 'active_record'

def fact(what, wanted, got) = puts(wanted == got ? "ok #{what}" : "not ok #{what}: wanted #{wanted}, got #{got}")

ActiveRecord::Base.establish_connection(adapter: 'postgresql', database: ENV['PGDATABASE'])
db = ActiveRecord::Base.connection
db.execute("SELECT le_try_acquire(9, 'x')")
pg = db.raw_connection
beats = lambda do |_|
  yes = db.select_value("SELECT le_renew(9, 'x')")
  fact('true is true', true, yes)
end
sent = 0
ActiveSupport::Notifications.subscribe('sql.active_record') do |*, payload|
  sent += 1 if payload[:sql].include?('le_renew') && !payload[:cached]
end
ActiveRecord::Base.cache { 2.times(&beats) }
fact('the cache swallows the second', 1, sent)
sent = 0
ActiveRecord::Base.cache { db.uncached { 2.times(&beats) } }
fact('uncached does not', 2, sent)
sent = 0
ActiveRecord::Base.cache { 2.times { db.exec_query("SELECT le_renew(9, 'x')") } }
fact('nor does exec_query', 2, sent)
fact('a false is false', false, db.select_value("SELECT le_is_leader(9, 'y')"))
fact('a token is an Integer', Integer, db.select_value("SELECT le_token(9, 'x')").class)
pids = [db, Thread.new { ActiveRecord::Base.connection }.value].map { |c| c.select_value('SELECT pg_backend_pid()') }
fact('a connection for each thread', true, pids[0] != pids[1])
def state
  yield
rescue ActiveRecord::StatementInvalid => e
  e.cause.result.error_field(PG::PG_DIAG_SQLSTATE)
end
fact('the cause has the state', '25001',
     state { ActiveRecord::Base.transaction { db.execute("SELECT le_try_acquire(8, 'x')") } })
# a transaction in a transaction is the outer one, whose COMMIT is the one that fails
class Work < ActiveRecord::Base
  self.table_name = 'unfenced'
  after_commit { $called = true }
end
db.execute('CREATE TEMP TABLE unfenced (id serial, token bigint)')
inner = nil
outer = state do
  ActiveRecord::Base.transaction do
    ActiveRecord::Base.transaction do
      db.execute("SELECT le_guard(9, 'x')")
      db.execute('CREATE TEMP TABLE t (n int)')
    end
    Work.create!(token: 1)
    inner = 'left'
    PG.connect.exec("SELECT le_release(9, 'x')")
  end
end
fact('the outer COMMIT fails', 'LE001', outer)
fact('not the inner one', 'left', inner)
fact('after_commit is not called', nil, $called)
Work.create!(token: 1)
fact('else it is', true, $called)
pg.close
