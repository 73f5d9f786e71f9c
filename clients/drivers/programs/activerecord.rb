@@ ruby
@@ activerecord

def run_guarded(token, &work) = guarded(token, &work)

def execute(db, sql) = db.execute(sql)

@@ file main.rb
