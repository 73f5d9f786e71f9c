@@ shell
@@ shell-usage
