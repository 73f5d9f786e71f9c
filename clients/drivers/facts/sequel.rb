# What docs/drivers.md says of Sequel.
require 'sequel'
require 'socket'

def fact(what, wanted, got) = puts(wanted == got ? "ok #{what}" : "not ok #{what}: wanted #{wanted}, got #{got}")

def state
  yield
rescue Sequel::DatabaseError => e
  e.wrapped_exception.result.error_field(PG::PG_DIAG_SQLSTATE)
end

DB = Sequel.postgres
row = DB.fetch("SELECT elected, token, le_is_leader(9, 'y') AS no FROM le_campaign(9, 'x')").first
fact('a false is false', false, row[:no])
fact('a token is an Integer', Integer, row[:token].class)
lost = state do
  DB.transaction do
    DB.transaction do
      DB.fetch("SELECT le_guard(9, 'x')").first
      DB.run('INSERT INTO plain VALUES (-1)')
    end
    PG.connect.exec("SELECT le_release(9, 'x')")
  end
end
fact('the outer COMMIT fails', 'LE001', lost)
fact('a block', '25001', state { DB.transaction { DB.fetch("SELECT le_try_acquire(8, 'x')").first } })

both = Sequel.postgres(servers: { read_only: {} })
pid = ->(*server) { both.fetch('SELECT pg_backend_pid() AS pid').then { |d| server.empty? ? d : d.server(*server) }.first[:pid] }
both.transaction do
  mine = both.synchronize(&:backend_pid)
  fact('fetch leaves the transaction', true, pid.call != mine)
  fact('server(:default) does not', mine, pid.call(:default))
end

made = lambda do |options|
  Sequel.postgres(host: '/nowhere', **options) && 'made'
rescue Sequel::DatabaseConnectionError
  'raises'
end
fact('it connects when it is made', 'raises', made.call({}))
fact('but not with test: false', 'made', made.call({ test: false }))
