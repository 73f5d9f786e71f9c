@@ java-imports
@@ spring-imports

public class UsageSpring {
@@ java
@@ java-main
@@ spring
@@ spring-work
}
