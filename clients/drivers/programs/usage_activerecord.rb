@@ ruby
@@ activerecord
@@ activerecord-work
@@ ruby-main
