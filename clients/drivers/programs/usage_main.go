@@ go-main
