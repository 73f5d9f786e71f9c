@@ javascript
@@ pg-election
@@ pg-pool
@@ pg
@@ javascript-usage
