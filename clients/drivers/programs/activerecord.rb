@@ ruby
@@ activerecord

def run_guarded(token, &work)
  guarded(token, &work)
rescue StandardError
  ActiveRecord::Base.connection_pool.release_connection
  raise
end

def execute(db, sql) = db.execute(sql)

@@ file main.rb
