require 'active_record'
ActiveRecord::Base.establish_connection(adapter: 'postgresql', database: ENV['PGDATABASE'])
@@ ruby
@@ activerecord

def run_guarded(token, &work) = guarded(token, &work)

def execute(db, sql) = db.execute(sql)

@@ file main.rb
