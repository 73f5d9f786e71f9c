@@ java-imports
@@ jdbc-imports

public class UsageJdbc {
@@ java
@@ java-main
@@ jdbc
@@ jdbc-work
}
