"""The public buckets, or any S3 service."""
