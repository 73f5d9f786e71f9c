@@ ruby
@@ ruby-pg

def run_guarded(token, &work)
  $db2 ||= PG.connect
  guarded($db2, token, &work)
rescue PG::Error
  $db2&.close
  $db2 = nil
  raise
end

def execute(db, sql) = db.exec(sql)

@@ file main.rb
