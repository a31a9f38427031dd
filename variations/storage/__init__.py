"""Where things lie: one small interface over S3 and local folders."""
