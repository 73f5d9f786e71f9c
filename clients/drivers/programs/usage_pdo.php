<?php
@@ pdo
@@ pdo-main
